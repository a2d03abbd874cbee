#!/bin/bash
# The arguments, folders and command of MaPLe's scripts/maple/base2new_train_maple.sh.
DATA=/path/to/dataset/folder
DATASET=$1
SEED=$2
CFG=vit_b16_c2_ep5_batch4_2ctx
SHOTS=16

DIR=output/base2new/train_base/${DATASET}/shots_${SHOTS}/MaPLe/${CFG}/seed${SEED}
if [ -d "$DIR" ]; then
    echo "Results are available in ${DIR}. Resuming..."
else
    echo "Run this job and save the output to ${DIR}"
fi
python train.py --root ${DATA} --seed ${SEED} --trainer MaPLe \
    --dataset-config-file configs/datasets/${DATASET}.yaml \
    --config-file configs/trainers/MaPLe/${CFG}.yaml \
    --output-dir ${DIR} \
    DATASET.NUM_SHOTS ${SHOTS} \
    DATASET.SUBSAMPLE_CLASSES base
