#!/usr/bin/env bash
# Makes .venv-engines: what tests/engines/requirements.lock says. Without a GPU it gets torch for the CPU, found where pip is told to look
# for packages; TORCH and TORCHAUDIO name others. What is locked beside them (CUDA's libraries, Triton, TorchVision, TorchCodec) nothing needs
# there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec 9<tests/engines && flock 9 # two at once would write into the same environment

if [ -z "${TORCH:-}" ] && nvidia-smi -L >/dev/null 2>&1; then
    torch='' torchaudio='' others='pip|setuptools' # as locked: for CUDA
else
    torch=${TORCH:-torch==2.13.0+cpu} torchaudio=${TORCHAUDIO:-torchaudio==2.11.0}
    others='pip|setuptools|torch|torchaudio|torchvision|torchcodec|triton|nvidia-.*'
fi
stamp=.venv-engines/made
wanted=$({ pwd && echo "$torch $torchaudio" && cat tests/engines/requirements.lock scripts/engines.sh; } | sha256sum)
if [ "$(cat $stamp 2>/dev/null)" = "$wanted" ]; then
    exit
fi

pip_install() {
    .venv-engines/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-compile "$@"
}

locked() { awk -v pattern="^($1)\$" '/^[^ #]/ { split($1, name, "=="); on = (name[1] ~ pattern) == '"$2"' } on' tests/engines/requirements.lock; }

echo "set-up: installing the engines' packages into .venv-engines" >&2
"${PYTHON:-python3.11}" -m venv --clear .venv-engines
# The tools that build what is published as source only come first.
pip_install --no-deps --require-hashes -r <(locked 'pip|setuptools' 1)
pip_install --no-deps --require-hashes --no-build-isolation -r <(locked "$others" 0)
if [ -n "$torch" ]; then
    pip_install --no-deps "$torch" "$torchaudio"
    # Linked with CUDA. What is in it nothing here needs, and without it torchaudio is imported as if it had been built without.
    rm -f .venv-engines/lib/python3*/site-packages/torchaudio/lib/_torchaudio.abi3.so
fi
echo "$wanted" >$stamp
