# shellcheck shell=bash
# Sourced by the scripts here: makes .venv with the extras of pyproject.toml named in $1 and
# activates it. Nothing is installed again while pyproject.toml stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=$1
stamp=.venv/installed-${extras//,/-}
if ! cmp --silent pyproject.toml "$stamp"; then
    echo "Installing into .venv (extras: $extras); the first time takes some minutes."
    "${PYTHON:-python3}" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    cp pyproject.toml "$stamp"
fi
# shellcheck disable=SC1091
source .venv/bin/activate
