#!/usr/bin/env bash
# Every trainer with every bit-width on every data set with every seed, by one protocol. What is
# finished is skipped. Set the lists here, in the environment, or as flags:
#   bash scripts/sweep.sh --trainers CoOp QCoOp --bits 1 2 --datasets eurosat dtd --jobs 4
#   bash scripts/sweep.sh --launcher slurm --partition gpu --minutes 240 --jobs 32
# Also from the environment: DATA, OUTPUT, CFG, SHOTS, SOURCE; see docs/sweeps.md.
PROTOCOL=${PROTOCOL:-base2new} # base2new, few_shot, cross_dataset or domain_generalization
TRAINERS=${TRAINERS:-ZeroshotCLIP CoOp QCoOp CoCoOp QCoCoOp MaPLe QMaPLe}
BITS=${BITS-1 2 4}          # of the quantized trainers; none: what their files say
DATASETS=${DATASETS-}       # none: those of the papers
SEEDS=${SEEDS:-1 2 3}

extras=train
[[ "$*" == *slurm* ]] && extras=train,slurm
# shellcheck disable=SC2086 # the lists are to be split into words
set -- grid --protocol "$PROTOCOL" --trainers $TRAINERS --bits $BITS \
    --datasets $DATASETS --seeds $SEEDS "$@"
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" "$extras" "$@"
exec "$python" -m sweeps "$@"
