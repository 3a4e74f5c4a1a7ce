#!/usr/bin/env bash
# MST pretraining. Leaves work_dirs/<config name>/latest.pth, where the transfer configs look for it.
# Usage: bash tools/pretrain.sh [CONFIG] [GPUS] [train.py's arguments]
#   CONFIG  default: configs/pretrain/mst_deit-s_8xb64-100e_in1k.py
#   GPUS    default: all that are visible; 1 process where there is none
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/launch_env.sh"
case "${1:-}" in -h|--help) sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
config="$root/configs/pretrain/mst_deit-s_8xb64-100e_in1k.py"
if [[ $# -gt 0 && "$1" != -* ]]; then config="$1"; shift; fi
if [[ $# -gt 0 && "$1" =~ ^[0-9]+$ ]]; then
  gpus="$1"; shift
else
  gpus="$("$python" -c 'import torch; print(max(1, torch.cuda.device_count()))')"
fi
if [[ "$gpus" == 1 && "${NNODES:-1}" == 1 ]]; then exec "$python" "$root/tools/train.py" "$config" "$@"; fi
launch "$gpus" "$root/tools/train.py" "$config" --launcher pytorch ${goes_on[@]+"${goes_on[@]}"} "$@"
