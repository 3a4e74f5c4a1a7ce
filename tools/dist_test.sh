#!/usr/bin/env bash
# Test on several GPUs, or on as many CPU processes where there is no GPU.
# Usage: [PORT= NNODES= NODE_RANK= MASTER_ADDR=] bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [test.py's arguments]
set -euo pipefail
if [[ $# -lt 3 ]]; then sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; fi
source "$(dirname "${BASH_SOURCE[0]}")/launch_env.sh"
launch "$3" "$root/tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
