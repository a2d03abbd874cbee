#!/usr/bin/env bash
# The tables of the paper on real weights and data, one after the other, or those that are named:
# says what each needs, prints the published numbers, runs its sweep, and ends in a page that puts
# the measured ones beside them (OUTPUT/paper/paper.md).
#   bash scripts/reproduce_paper.sh --dry-run            # prints commands and numbers, runs nothing
#   bash scripts/reproduce_paper.sh base_to_new slip --jobs 4
# Hours are those of one GPU that does 50 TFLOP/s in half precision, by arithmetic: 35 GFLOP an image,
# 1 a class, 10 ms a step for launches, 3 seeds. Memory is that of the GPU. Neither was measured.
# From the environment: DATA, OUTPUT.
tables=()
while (($#)) && [[ $1 != -* ]]; do
    tables+=("$1")
    shift
done
flags=("$@")
((${#tables[@]})) || tables=(base_to_new few_shot transfer ablation slip noise)
# shellcheck source=scripts/env.sh
source "$(dirname "$0")/env.sh" train,report file FILE "$@"

folder=${OUTPUT:-output}/paper
status=0
for table in "${tables[@]}"; do
    sed -n '2,/^[^#]/s/^# /== /p' "configs/sweeps/paper/$table.yaml"
    "$python" -m reporting.paper "$folder" "$table" || exit
    QPROMPT_PYTHON=$python bash scripts/ablate.sh "paper/$table" "${flags[@]}" || status=1
done
[[ " ${flags[*]} " == *" --dry-run "* ]] || "$python" -m reporting.paper "$folder"
exit "$status"
