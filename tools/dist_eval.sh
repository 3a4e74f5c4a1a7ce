#!/usr/bin/env bash
# k-NN or linear evaluation on several GPUs, or on as many CPU processes where there is no GPU.
# Usage: [PORT= NNODES= NODE_RANK= MASTER_ADDR=] bash tools/dist_eval.sh knn|linear GPUS TRAIN VAL [eval_*.py's arguments]
set -euo pipefail
if [[ $# -lt 4 || ! "$1" =~ ^(knn|linear)$ ]]; then sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; fi
source "$(dirname "${BASH_SOURCE[0]}")/launch_env.sh"
launch "$2" "$root/tools/eval_$1.py" "${@:3}"
