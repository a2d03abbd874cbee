#!/usr/bin/env bash
# Few-shot classification: train on some images of every class, test on all classes.
#   bash scripts/few_shot.sh TRAINER DATASET SHOTS SEED [BITS] [--dry-run]
#   CFG=tiny bash scripts/few_shot.sh QCoOp digits 4 1 2
#   NCTX=16 CSC=False CTP=end CFG=rn50 bash scripts/few_shot.sh CoOp caltech101 1 1
# From the environment: DATA, OUTPUT, CFG (file in configs/trainers/TRAINER), NCTX, CSC, CTP; see
# docs/sweeps.md.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train few_shot "$@"
exec "$python" -m sweeps few_shot "$@"
