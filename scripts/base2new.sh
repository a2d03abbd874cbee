#!/usr/bin/env bash
# Base-to-new generalization: train and test on the first half of the classes, test on the second.
#   bash scripts/base2new.sh TRAINER DATASET SEED [BITS] [--dry-run]
#   CFG=tiny bash scripts/base2new.sh QCoOp digits 1 2
# From the environment: DATA, OUTPUT, CFG (file in configs/trainers/TRAINER), SHOTS; see docs/sweeps.md.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train base2new "$@"
exec "$python" -m sweeps base2new "$@"
