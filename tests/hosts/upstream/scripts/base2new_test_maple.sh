#!/bin/bash
# The arguments, folders and command of MaPLe's scripts/maple/base2new_test_maple.sh.
DATA=/path/to/dataset/folder
DATASET=$1
SEED=$2
CFG=vit_b16_c2_ep5_batch4_2ctx
SHOTS=16
LOADEP=5
SUB=new

RUN=${DATASET}/shots_${SHOTS}/MaPLe/${CFG}/seed${SEED}
echo "Evaluating model"
python train.py --root ${DATA} --seed ${SEED} --trainer MaPLe \
    --dataset-config-file configs/datasets/${DATASET}.yaml \
    --config-file configs/trainers/MaPLe/${CFG}.yaml \
    --output-dir output/base2new/test_${SUB}/${RUN} \
    --model-dir output/base2new/train_base/${RUN} \
    --load-epoch ${LOADEP} \
    --eval-only \
    DATASET.NUM_SHOTS ${SHOTS} \
    DATASET.SUBSAMPLE_CLASSES ${SUB}
