#!/usr/bin/env bash
# Install what the tests need, then run the linters and the whole test suite.
# Arguments go to pytest: bash scripts/test.sh -k kmeans
#
# The linters and the quickest tests of each package, within a minute on two cores:
#     bash scripts/test.sh --fast
#
# The tests of the library alone, under another torch (unset: the newest) or Python (unset: python3):
#     TORCH=1.13.1 PYTHON=python3.11 bash scripts/test.sh --library-only

for argument in "$@"; do # before anything is installed
    file=${argument%%::*}
    if [[ $file == tests/* && ! -e $(dirname "$0")/../$file ]]; then
        echo "error: there is no $file" >&2
        exit 2
    fi
done

if [[ ${1:-} == --library-only ]]; then
    shift
    set -euo pipefail
    cd "$(dirname "$0")/.."
    venv=build/library-torch-${TORCH:-newest}
    pins=("torch${TORCH:+==$TORCH}")
    if printf '%s\n' "${TORCH:-newest}" 2.2.99 | sort --version-sort --check=silent; then
        pins+=("numpy<2") # what torch was built for until 2.2
    fi
    if ! cmp --silent pyproject.toml "$venv/installed"; then
        echo "Installing into $venv; the first time takes some minutes."
        "${PYTHON:-python3}" -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --editable ".[test-library]" "${pins[@]}"
        cp pyproject.toml "$venv/installed"
    fi
    exec "$venv/bin/python" -m pytest tests/qprompt tests/hosts \
        --ignore tests/qprompt/use "$@"
fi

# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" test

ruff check .
ruff format --check .
mypy
vermin --quiet --target=3.8- --no-tips --eval-annotations --violations qprompt/*.py
shellcheck --external-sources scripts/*.sh .ci/run
if [[ ${1:-} == --fast ]]; then
    shift
    set -- tests/test_architecture.py tests/qprompt tests/trainers/test_coop.py \
        tests/dassl/test_optim.py tests/dassl/test_config.py tests/datasets/test_fewshot.py \
        tests/datasets/test_splits.py tests/sweeps/test_grid.py tests/reporting/test_base_to_new.py \
        --ignore tests/qprompt/use \
        --deselect tests/qprompt/test_kmeans.py::test_large_inputs_are_within_a_percent \
        --deselect tests/qprompt/test_kmeans.py::test_within_a_percent_of_400000_numbers \
        --deselect tests/qprompt/test_kmeans.py::test_256_centroids "$@"
fi
"$python" -m pytest --numprocesses 2 --dist loadfile "$@"
