#!/usr/bin/env bash
# Base-to-new generalization on handwritten digits with the embedded tiny CLIP: zero-shot CLIP, CoOp
# and QCoOp at 1, 2 and 4 bits, three seeds each. Finished runs are skipped.
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
        VERBOSE False DATASET.NUM_SHOTS "$SHOTS" DATASET.SUBSAMPLE_CLASSES "$half"
}

for seed in 1 2 3; do
    for half in base new; do
        run $half ZeroshotCLIP ZeroshotCLIP $seed --eval-only
    done
    run base CoOp CoOp $seed
    run new CoOp CoOp $seed --eval-only --model-dir $OUTPUT/base/CoOp/seed$seed
    for bits in 1 2 4; do
        name=QCoOp_${bits}bit
        run base QCoOp $name $seed TRAINER.QPROMPT.BITS $bits
        run new QCoOp $name $seed --eval-only --model-dir $OUTPUT/base/$name/seed$seed \
            TRAINER.QPROMPT.BITS $bits
    done
done

python -m reporting $OUTPUT
