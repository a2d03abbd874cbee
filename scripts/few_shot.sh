#!/usr/bin/env bash
# Few-shot classification: train on some images of every class, test on all classes.
#   bash scripts/few_shot.sh TRAINER DATASET SHOTS SEED [BITS] [--dry-run]
#   CFG=tiny bash scripts/few_shot.sh QCoOp digits 4 1 2
# From the environment: DATA, OUTPUT, CFG (file in configs/trainers/TRAINER); see docs/sweeps.md.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train few_shot "$@"
exec "$python" -m sweeps few_shot "$@"
