#!/usr/bin/env bash
# Sweeps of configs/sweeps, a report for each: those of the ablations, or the files and folders there
# that are named first. What is finished is skipped.
#   bash scripts/ablate.sh --jobs 2
#   bash scripts/ablate.sh ablations/bits stability --datasets eurosat --config vit_b16_ctxv1 --seeds 1 2
# From the environment: DATA, OUTPUT; see docs/sweeps.md.
named=()
while (($#)) && [[ $1 != -* ]]; do
    named+=("$1")
    shift
done
flags=("$@")
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report file FILE "$@"

status=0
for name in "${named[@]:-ablations}"; do
    files=(configs/sweeps/"$name".yaml)
    [[ -d configs/sweeps/$name ]] && files=(configs/sweeps/"$name"/*.yaml)
    for file in "${files[@]}"; do
        output=${file#configs/sweeps/}
        output=${OUTPUT:-output}/${output%.yaml}
        "$python" -m sweeps file "$file" --output "$output" "${flags[@]}" || status=1
        if [[ " ${flags[*]} " != *" --dry-run "* ]]; then
            "$python" -m reporting "$output" || status=1
        fi
    done
done
exit "$status"
