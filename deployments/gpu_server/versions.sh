# shellcheck shell=bash disable=SC2034  # read by install.sh
# What install.sh fetches from elsewhere than Debian's and Python's indexes, pinned, and the room that all of it takes.

DISK_GB=60 # environments 15, Ollama 4, its model 9, weights 10, and lessons in work

# Ollama's release for Linux on x86_64, 1.4 GB.
OLLAMA_VERSION=0.32.7
OLLAMA_SHA256=ed1e39fe8fea90bd7f4c723bd949a2cea3153e111220ec0a183ea5b8dc8b2cae
OLLAMA_ARCHIVE=https://github.com/ollama/ollama/releases/download/v$OLLAMA_VERSION/ollama-linux-amd64.tar.zst

# Where the distribution has no Python 3.11 (Ubuntu 22.04 has 3.10, 24.04 has 3.12): uv brings this one. uv itself is in tools.lock; it holds
# the digests of the Pythons that it fetches.
PYTHON_VERSION=3.11.18
