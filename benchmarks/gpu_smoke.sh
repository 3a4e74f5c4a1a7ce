#!/usr/bin/env bash
# At most 10 minutes on one GPU: everything runs in every precision, and costs what? Prints one JSON line.
# Usage: bash benchmarks/gpu_smoke.sh [--rehearse]
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
python="${MST_VENV:-$root/.venv}/bin/python"
[[ -n "${VIRTUAL_ENV:-}" || "${MST_NO_VENV:-0}" == 1 || ! -x "$python" ]] && python=python
cd "$root"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec timeout 600 "$python" benchmarks/gpu_smoke.py "$@"
