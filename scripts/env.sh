# shellcheck shell=bash
# Sourced by the scripts here: makes .venv with the extras of pyproject.toml named in $1 and
# activates it. Nothing is installed again while pyproject.toml stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=$1
python=${PYTHON:-python3}
made="$("$python" --version) $PWD"
if [[ ! -f .venv/made || $(<.venv/made) != "$made" ]]; then
    rm -rf .venv
    "$python" -m venv .venv
    echo "$made" >.venv/made
fi
stamp=.venv/installed-${extras//,/-}
if ! cmp --silent pyproject.toml "$stamp"; then
    echo "Installing into .venv (extras: $extras); the first time takes some minutes."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    cp pyproject.toml "$stamp"
fi
# shellcheck disable=SC1091
source .venv/bin/activate
