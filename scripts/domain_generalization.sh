#!/usr/bin/env bash
# Domain generalization: train on all classes of ImageNet, test on ImageNetV2, -Sketch, -A and -R.
#   bash scripts/domain_generalization.sh TRAINER SEED [BITS] [--dry-run]
#   SOURCE=digits CFG=tiny bash scripts/domain_generalization.sh QCoOp 1 2
# From the environment: DATA, OUTPUT, CFG (file in configs/trainers/TRAINER), SHOTS, SOURCE,
# NCTX, CSC, CTP; see docs/sweeps.md.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train domain_generalization "$@"
exec "$python" -m sweeps domain_generalization "$@"
