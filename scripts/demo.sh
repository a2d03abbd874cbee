#!/usr/bin/env bash
# Base-to-new generalization on handwritten digits with the embedded tiny CLIP: zero-shot CLIP, and
# each prompt learner beside its quantized counterpart, CoOp and QCoOp with ten seeds, the others with
# three. Finished runs are skipped.
if (($#)); then
    echo "error: demo.sh takes no arguments, got $*; DATA in the environment names a folder" >&2
    exit 2
fi
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report

"$python" train.py --root "${DATA:-data}" --output-dir output/demo --sweep configs/sweeps/demo.yaml
"$python" -m reporting output/demo
