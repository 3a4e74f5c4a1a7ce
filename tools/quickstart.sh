#!/usr/bin/env bash
# What MST learns without labels, from a fresh machine in five minutes after set-up; --full goes on to mAP and mIoU.
# Usage: bash tools/quickstart.sh [--out DIR] [--seed N] [--full [--pretrain-epochs E] [--images DIR] [--coco DIR] [--cityscapes DIR]]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
extras=pretrain  # mmdet and mmseg are needed by --full alone
for argument in "$@"; do
  case "$argument" in
    -h|--help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --full) extras=transfer ;;
  esac
done
MST_EXTRAS="${MST_EXTRAS-$extras}" bash "$root/tools/setup_env.sh"
if [[ "${MST_NO_VENV:-0}" == 1 ]]; then python="${MST_PYTHON:-python}"; else python="${MST_VENV:-$root/.venv}/bin/python"; fi
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" "$root/tools/quickstart.py" "$@"
