#!/usr/bin/env bash
# Base-to-new generalization on handwritten digits with the embedded tiny CLIP: zero-shot CLIP, and
# each prompt learner beside its quantized counterpart, three seeds each. Finished runs are skipped.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report

DATA=${DATA:-data}
OUTPUT=output/demo
SHOTS=16

# run HALF TRAINER NAME SEED [train.py arguments]: one run, unless its result is there already
run() {
    local half=$1 trainer=$2 name=$3 seed=$4
    local folder=$OUTPUT/$half/$name/seed$seed
    shift 4
    if [[ -f $folder/results.json ]]; then
        echo "skipped, finished before: $folder"
        return
    fi
    echo "== $name, seed $seed, $half classes"
    python train.py --root "$DATA" --seed "$seed" --trainer "$trainer" --output-dir "$folder" \
        --dataset-config-file configs/datasets/digits.yaml \
        --config-file "configs/trainers/$trainer/tiny.yaml" "$@" \
        DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$half" | grep "accuracy:"
}

# base_to_new TRAINER NAME SEED [KEY VALUE ...]: train on the base classes, then test on the new
base_to_new() {
    local trainer=$1 name=$2 seed=$3
    shift 3
    run base "$trainer" "$name" "$seed" "$@"
    run new "$trainer" "$name" "$seed" --eval-only \
        --model-dir "$OUTPUT/base/$name/seed$seed" "$@"
}

for seed in 1 2 3; do
    run base ZeroshotCLIP ZeroshotCLIP $seed --eval-only
    run new ZeroshotCLIP ZeroshotCLIP $seed --eval-only
    base_to_new CoOp CoOp $seed
    for bits in 1 2 4; do
        base_to_new QCoOp QCoOp_${bits}bit $seed TRAINER.QPROMPT.BITS $bits
    done
    for trainer in CoCoOp QCoCoOp MaPLe QMaPLe; do
        base_to_new $trainer $trainer $seed
    done
done

python -m reporting $OUTPUT
