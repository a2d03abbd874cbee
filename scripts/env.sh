# shellcheck shell=bash
# Sourced by the scripts here: sets $python to one that has the extras of pyproject.toml named in $1.
# That is QPROMPT_PYTHON, or the environment that is active, or else .venv, which is made and filled
# where it must be. What follows $1 are arguments of python -m sweeps, which are checked before.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=$1
shift
base=${QPROMPT_PYTHON:-${PYTHON:-python3}}
if (($#)); then
    status=0 # 42: they are right, 0: they asked for help
    "$base" -c 'import sys; from sweeps.__main__ import parse_args; parse_args(); sys.exit(42)' "$@" ||
        status=$?
    ((status == 42)) || exit "$status"
fi

has_all() { missing=$("$1" scripts/missing.py "$extras"); }

if [[ -n ${QPROMPT_PYTHON:-} ]]; then
    python=$QPROMPT_PYTHON
    if ! has_all "$python"; then
        echo "error: QPROMPT_PYTHON=$python lacks $missing: install them there, or unset it" >&2
        exit 1
    fi
elif [[ -n ${VIRTUAL_ENV:-${CONDA_PREFIX:-}} ]] && has_all python; then
    python=python
else
    if [[ -n ${missing:-} ]]; then
        echo "The active environment lacks $missing: .venv is used in its place" >&2
    fi
    python=$PWD/.venv/bin/python
    made="$("$base" --version) $PWD"
    if [[ -f .venv/made && $(<.venv/made) != "$made" ]]; then
        rm -rf .venv # ours, of another Python or another folder
    fi
    if [[ ! -x $python ]] || ! has_all "$python"; then
        if [[ ! -d .venv || -f .venv/made ]]; then # not one that the user made
            mkdir -p .venv
            echo "$made" >.venv/made
            "$base" -m venv .venv
        fi
        echo "Installing into .venv (extras: $extras); the first time takes some minutes."
        "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    fi
fi
PATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH
export PATH
