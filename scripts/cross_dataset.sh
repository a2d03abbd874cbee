#!/usr/bin/env bash
# Cross-dataset transfer: train on all classes of ImageNet, test on the ten other data sets.
#   bash scripts/cross_dataset.sh TRAINER SEED [BITS] [--dry-run]
#   SOURCE=characters CFG=tiny bash scripts/cross_dataset.sh QCoOp 1 2
# From the environment: DATA, OUTPUT, CFG (file in configs/trainers/TRAINER), SHOTS, SOURCE,
# NCTX, CSC, CTP; see docs/sweeps.md.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train cross_dataset "$@"
exec "$python" -m sweeps cross_dataset "$@"
