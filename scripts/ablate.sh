#!/usr/bin/env bash
# The ablations of the paper and more, a sweep and a report each: all files in
# configs/sweeps/ablations, or those named first. What is finished is skipped.
#   bash scripts/ablate.sh --jobs 2
#   bash scripts/ablate.sh codebook bits --datasets eurosat dtd --config vit_b16_ctxv1 --seeds 1 2 3
# From the environment: DATA, OUTPUT; see docs/sweeps.md.
names=()
while (($#)) && [[ $1 != -* ]]; do
    names+=("$1")
    shift
done
flags=("$@")
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report file ablations "$@"

if ((${#names[@]} == 0)); then
    for file in configs/sweeps/ablations/*.yaml; do
        names+=("$(basename "$file" .yaml)")
    done
fi
status=0
for name in "${names[@]}"; do
    output=${OUTPUT:-output}/ablations/$name
    "$python" -m sweeps file "configs/sweeps/ablations/$name.yaml" --output "$output" \
        "${flags[@]}" || status=1
    if [[ " ${flags[*]} " != *" --dry-run "* ]]; then
        "$python" -m reporting "$output" || status=1
    fi
done
exit "$status"
