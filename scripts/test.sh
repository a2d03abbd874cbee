#!/usr/bin/env bash
# Install what the tests need, then run the linters and the whole test suite.
# Arguments go to pytest: bash scripts/test.sh -k kmeans
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" test

ruff check .
ruff format --check .
mypy
vermin --quiet --target=3.8- --no-tips --eval-annotations --violations qprompt
shellcheck --external-sources scripts/*.sh .ci/run
python -m pytest "$@"
