#!/usr/bin/env bash
# Train on several GPUs, or on as many CPU processes where there is no GPU.
# Usage: [PORT= NNODES= NODE_RANK= MASTER_ADDR= MAX_RESTARTS=] bash tools/dist_train.sh CONFIG GPUS [train.py's arguments]
set -euo pipefail
if [[ $# -lt 2 ]]; then sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; fi
source "$(dirname "${BASH_SOURCE[0]}")/launch_env.sh"
launch "$2" "$root/tools/train.py" "$1" --launcher pytorch ${goes_on[@]+"${goes_on[@]}"} "${@:3}"
