#!/usr/bin/env bash
# Sets up the GPU server: Ubuntu 22.04 or 24.04 on x86_64 with an NVIDIA GPU. Run it again any time, after a failure too: it does what is
# missing and leaves the rest; with nothing missing it changes nothing.
set -euo pipefail

usage() {
    cat <<'END'
usage: sudo deployments/gpu_server/install.sh [options]

Sets up this server for dubbing: system packages, users, the pipeline and the Chatterbox service in environments of their own, Ollama and
its model, the models' weights, settings in /etc/coursedub, systemd units. README.md beside this script says what is where.

options:
  --dry-run          only say what would be changed
  --model NAME       the translator's model in Ollama (default: as set in /etc/coursedub/services.env, at first qwen2.5:14b)
  --without-models   neither weights nor Ollama's model: they are fetched by another run, without this option
  --no-start         start and restart nothing
  --help             this
END
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=../installing.sh
. "$here/../installing.sh"

readonly STATE=/var/lib/coursedub CHATTERBOX_STATE=/var/lib/coursedub-chatterbox OLLAMA_STATE=/var/lib/coursedub-ollama
readonly DOWNLOADS=/var/cache/coursedub
readonly PACKAGES=(ca-certificates curl ffmpeg procps python3 python3-venv zstd)
readonly SERVICES=(coursedub-ollama coursedub-chatterbox coursedub-worker)
readonly PULL_ADDRESS=127.0.0.1:11499 # of the Ollama that runs only while the model is fetched
readonly PULL_PATIENCE=120 # seconds until it answers

model='' without_models='' no_start=''

# --- what can't be done is refused before anything is changed

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --dry-run) dry_run=yes ;;
        --model)
            [ $# -gt 1 ] || fail "--model: a name is needed, as qwen2.5:14b"
            model=$2
            shift
            ;;
        --without-models) without_models=yes ;;
        --no-start) no_start=yes ;;
        --help | -h)
            usage
            exit 0
            ;;
        *) fail "$1: no such option (--help lists them)" ;;
        esac
        shift
    done
    [ -z "$model" ] || [[ $model =~ ^[A-Za-z0-9._/-]+(:[A-Za-z0-9._-]+)?$ && $model != *..* ]] || fail "--model: $model is no name of a model"
}

check_server() {
    check_machine pyproject.toml deployments/gpu_server/{pipeline.lock,tools.lock,versions.sh} deployments/gpu_server/chatterbox/requirements.lock
    # shellcheck source=versions.sh
    . "$here/versions.sh"
    [ -d $OPT ] || check_disk
}

check_disk() {
    local folder free
    for folder in /opt /var; do
        [ -d $folder ] || folder=/
        free=$(($(df --output=avail -B1 $folder | tail -1) / 1000000000))
        [ "$free" -ge "$DISK_GB" ] || fail "$free GB are free at $folder, and $DISK_GB GB are needed"
    done
}

# --- the system

make_users() {
    local name
    # Each service has a user of its own: only the worker's may read the keys to the store.
    for name in coursedub coursedub-chatterbox coursedub-ollama; do
        make_user "$name"
    done
    make_folders
    make_folder $DOWNLOADS 0755 root root
}

# --- settings

configure() {
    model=${model:-$(setting services.env COURSEDUB_OLLAMA_MODEL)}
    model=${model:-qwen2.5:14b}
    write_settings services.env coursedub <<END
# Where the services of this server are, for all of them. No secrets here.
OLLAMA_HOST=127.0.0.1:11434
COURSEDUB_OLLAMA_MODEL=$model
COURSEDUB_CHATTERBOX=http://127.0.0.1:8001
COURSEDUB_WORKER=http://127.0.0.1:8002
# Engines of a lesson that names none itself
COURSEDUB_PROFILE=gpu
END
    write_settings worker.env coursedub <<'END'
# The worker's settings and secrets. Fill in, then: sudo systemctl restart coursedub-worker
# Values are read by systemd: no $ and no commands; put "…" around what holds spaces.

# Prefect's server
PREFECT_API_URL=
#PREFECT_API_AUTH_STRING=user:password
#PREFECT_API_KEY=

# Where results are kept: s3://bucket/prefix, a folder, or a block saved in Prefect
#COURSEDUB_STORE=s3://bucket/prefix
#AWS_ACCESS_KEY_ID=
#AWS_SECRET_ACCESS_KEY=
#AWS_ENDPOINT_URL=https://s3.example.org
#AWS_REGION=

# For weights that the model hub gives only to accounts that accepted their terms (who speaks when: pyannote)
#HF_TOKEN=
END
    write_settings chatterbox.env coursedub-chatterbox <<'END'
# Settings of the Chatterbox service: chatterbox_service/settings.py lists them with their defaults.
#CHATTERBOX_MAX_WAITING=16
#CHATTERBOX_VOICES=/var/lib/coursedub-chatterbox/voices
END
    if [ -z "$dry_run" ] && [ "$(setting services.env COURSEDUB_OLLAMA_MODEL)" != "$model" ]; then
        fail "$ETC/services.env was changed by hand: set COURSEDUB_OLLAMA_MODEL=$model there, then run this again"
    fi
}

# --- Python and the two environments

# What no link leads to any more and no process uses: a worker that still ends its lesson keeps its environment.
remove_old() {
    local old
    for old in "$OPT"/environments/*-* "$OPT"/ollama-* "$OPT"/python/cpython-*; do
        [ -d "$old" ] && [ ! -L "$old" ] || continue
        case $old in
        "$(readlink $OPT/pipeline)" | "$(readlink $OPT/chatterbox)" | "$(readlink $OPT/ollama)" | "${python%/bin/*}") continue ;;
        esac
        grep -qsF "$old/" /proc/[0-9]*/maps || change "remove $old, which nothing uses any more" rm -rf "$old"
    done
}

# --- Ollama, its model, and the weights

install_ollama() {
    local folder=$OPT/ollama-$OLLAMA_VERSION
    [ -x "$folder/bin/ollama" ] || change "Ollama $OLLAMA_VERSION" fetch_ollama "$folder"
    if [ "$(readlink $OPT/ollama 2>/dev/null)" != "$folder" ]; then
        change "$OPT/ollama" switch_to "$folder" $OPT/ollama
        restart_later coursedub-ollama
    fi
}

fetch_ollama() {
    local archive=$DOWNLOADS/ollama-$OLLAMA_VERSION.tar.zst code
    if ! is_ollama "$archive"; then
        # What a broken-off try has fetched is continued.
        curl --silent --show-error --fail --location --retry 5 --continue-at - --output "$archive" "$OLLAMA_ARCHIVE" || {
            code=$?
            [ $code != 22 ] && [ $code != 33 ] || rm -f "$archive" # the server won't continue what is here
            fail "Ollama could not be fetched from $OLLAMA_ARCHIVE (curl ended with $code); run this again to continue"
        }
        is_ollama "$archive" || {
            rm "$archive"
            fail "Ollama $OLLAMA_VERSION as fetched is not what versions.sh has pinned by its SHA-256; removed"
        }
    fi
    rm -rf "$1.part"
    mkdir "$1.part"
    tar --extract --zstd --no-same-owner --file "$archive" --directory "$1.part"
    [ -x "$1.part/bin/ollama" ] || fail "Ollama's archive has no bin/ollama"
    mv -T "$1.part" "$1"
    rm "$archive"
}

is_ollama() { [ -f "$1" ] && echo "$OLLAMA_SHA256  $1" | sha256sum --check --status; }

# As Ollama lays models out: [[host/]namespace/]name[:tag].
model_manifest() {
    local name=${1%:*} tag=latest
    [[ $1 == *:* ]] && tag=${1##*:}
    case $name in
    */*/*) ;;
    */*) name=registry.ollama.ai/$name ;;
    *) name=registry.ollama.ai/library/$name ;;
    esac
    echo "$OLLAMA_STATE/models/manifests/$name/$tag"
}

fetch_model() {
    local waited=0
    # The service may not reach the network; this one is for the fetching alone.
    become_ollama serve >$DOWNLOADS/ollama.log 2>&1 &
    server=$!
    until (become_ollama list) >/dev/null 2>&1; do
        kill -0 $server 2>/dev/null || fail "Ollama does not start: $(tail -1 $DOWNLOADS/ollama.log)"
        [ $((waited += 1)) -le $PULL_PATIENCE ] || fail "Ollama gave no answer in $PULL_PATIENCE s"
        sleep 1
    done
    (become_ollama pull "$1") >$DOWNLOADS/pull.log 2>&1 ||
        fail "Ollama could not fetch $1: $(tr '\r' '\n' <$DOWNLOADS/pull.log | grep -v '^\s*$' | tail -1)"
    stop_server
    rm -f $DOWNLOADS/ollama.log $DOWNLOADS/pull.log
}

server=''
stop_server() {
    [ -n "$server" ] || return 0
    kill "$server" 2>/dev/null || :
    wait "$server" 2>/dev/null || :
    server=''
}

fetch_models() {
    [ -f "$(model_manifest "$model")" ] || change "Ollama's model $model" fetch_model "$model"
    local listed='not fetched'
    [ ! -x $OPT/pipeline/bin/coursedub ] || listed=$(as_worker $OPT/pipeline/bin/coursedub weights list --profile gpu)
    if [[ $listed == *'not fetched'* ]]; then
        change "the pipeline's weights" as_worker $OPT/pipeline/bin/coursedub weights fetch --profile gpu
    fi
    if [ ! -x $OPT/chatterbox/bin/python ] || ! as_chatterbox -c "$CHATTERBOX_WEIGHTS_THERE"; then
        change "Chatterbox's weights" as_chatterbox -c "$CHATTERBOX_FETCH"
        restart_later coursedub-chatterbox
    fi
}

as_worker() { (become coursedub $STATE COURSEDUB_WEIGHTS=$STATE/weights XDG_CACHE_HOME=$STATE/cache PREFECT_HOME=$STATE/prefect "$@"); }

as_chatterbox() {
    (become coursedub-chatterbox $CHATTERBOX_STATE HF_HOME=$CHATTERBOX_STATE/hub HF_HUB_DISABLE_TELEMETRY=1 TQDM_DISABLE=1 \
        REVISION="$(setting chatterbox.env CHATTERBOX_REVISION)" FOLDER=$CHATTERBOX_STATE/weights $OPT/chatterbox/bin/python "$@")
}

become_ollama() {
    become coursedub-ollama $OLLAMA_STATE OLLAMA_MODELS=$OLLAMA_STATE/models OLLAMA_HOST=$PULL_ADDRESS $OPT/ollama/bin/ollama "$@"
}

readonly CHATTERBOX_WEIGHTS_THERE='
import os, sys
from chatterbox_service.model import WEIGHTS
sys.exit(not all(os.path.isfile(os.path.join(os.environ["FOLDER"], name)) for name in WEIGHTS))'
readonly CHATTERBOX_FETCH='
import os
from chatterbox_service.model import EXTRAS, REPOSITORY, WEIGHTS
from huggingface_hub import snapshot_download
revision = os.environ["REVISION"] or "main"
snapshot_download(REPOSITORY, revision=revision, allow_patterns=[*WEIGHTS, *EXTRAS], local_dir=os.environ["FOLDER"])'

# --- systemd

install_units() {
    local unit service reload=''
    for unit in "$here"/systemd/coursedub*; do
        install_file "$unit" "$UNITS/${unit##*/}" 0644
        if [ -n "$installed" ]; then
            reload=yes
            service=$(basename "$unit" .service)
            [[ " ${SERVICES[*]} " != *" $service "* ]] || restart_later "$service"
        fi
    done
    if [ "$(systemd_version)" -ge 254 ]; then
        for service in "${SERVICES[@]}"; do
            install_file "$here/systemd/back-off.conf" "$UNITS/$service.service.d/back-off.conf" 0644
            [ -z "$installed" ] || reload=yes
        done
    fi
    install_file "$here/drain" $OPT/bin/drain 0755
    install_file "$here/coursedub" /usr/local/bin/coursedub 0755
    install_file "$here/systemd/journald.conf" /etc/systemd/journald.conf.d/coursedub.conf 0644
    if [ -n "$installed" ] && running_systemd; then
        change "restart the journal" systemctl restart systemd-journald
    fi
    if [ -n "$reload" ] && running_systemd; then
        change "tell systemd" systemctl daemon-reload
    fi
    [ -L $UNITS/multi-user.target.wants/coursedub.target ] || change "start at boot" systemctl --quiet enable coursedub.target
}

start() {
    if [ -n "$no_start" ]; then
        return
    elif ! running_systemd; then
        say "systemd is not running here: nothing is started"
        return
    elif [ -z "$(setting worker.env PREFECT_API_URL)" ]; then
        say "next: set PREFECT_API_URL in $ETC/worker.env, then run this again"
        return
    fi
    restart_for_settings "coursedub-ollama services.env" "coursedub-chatterbox chatterbox.env" "coursedub-worker services.env worker.env"
    start_target coursedub.target
}

report_gpu() {
    local seen
    if ! command -v nvidia-smi >/dev/null; then
        say "there is no NVIDIA driver (no nvidia-smi). Install it and boot again: apt-get install ubuntu-drivers-common && ubuntu-drivers install --gpgpu"
    elif seen=$(nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2>&1); then
        say "GPU: ${seen//$'\n'/; }"
    else
        say "the NVIDIA driver does not answer: ${seen##*$'\n'}"
    fi
}

main() {
    read_options "$@"
    check_server
    trap stop_server EXIT
    umask 022
    install_packages
    make_users
    configure
    provide_python
    make_environment pipeline "$here/pipeline.lock" coursedub-worker "$checkout" pyproject.toml LICENSE dubbing blocks tasks flows
    make_environment chatterbox "$here/chatterbox/requirements.lock" coursedub-chatterbox "$here/chatterbox" pyproject.toml chatterbox_service
    install_ollama
    [ -n "$without_models" ] || fetch_models
    install_units
    start
    remove_old
    report_gpu
    if [ -n "$dry_run" ]; then
        say "a dry run: $changes changes to make, nothing was changed"
    else
        say "done, $changes changes"
    fi
}

main "$@"
