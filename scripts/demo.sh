#!/usr/bin/env bash
# Base-to-new generalization on handwritten digits with the embedded tiny CLIP: zero-shot CLIP, and
# each prompt learner beside its quantized counterpart, three seeds each. Finished runs are skipped.
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report

python train.py --root "${DATA:-data}" --output-dir output/demo --sweep configs/sweeps/demo.yaml
python -m reporting output/demo
