#!/usr/bin/env bash
# All tests, two files at a time, on the environment of tools/setup_env.sh (made first if need be). Arguments go to
# pytest; -n 0 runs one test after the other.
# MST_REAL_DATA=DIR lets the tests on real photographs run too.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
bash "$root/tools/setup_env.sh"
if [[ "${MST_NO_VENV:-0}" == 1 ]]; then python="${MST_PYTHON:-python}"; else python="${MST_VENV:-$root/.venv}/bin/python"; fi
cd "$root"
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}" # several times faster where other programs use the cores too
exec "$python" -m pytest -n 2 --dist loadfile "$@"
