#!/usr/bin/env bash
# Makes .venv and installs the toolkit into it with the tested versions. Safe to call again: nothing changed, nothing done.
#   MST_PYTHON=python3.12   which interpreter makes the environment (Python >= 3.10)
#   MST_NO_VENV=1           use the active environment instead of .venv
#   MST_EXTRAS=transfer,dev which extras (docs/install.md); empty: the core alone, without training
#   MST_VENV=DIR            another place than .venv
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
extras="${MST_EXTRAS-transfer,dev}"
venv="${MST_VENV:-$root/.venv}"
step="start"; remedy=""
log="$(mktemp)"
trap 'rm -f "$log"' EXIT

fail() {
  [[ -s "$log" ]] && tail -n 15 "$log" >&2
  echo "error: set-up failed at step: $step. Try: $remedy" >&2
  exit 1
}
run() {  # quiet unless it fails
  "$@" >"$log" 2>&1 || fail
}
say() { step="$1"; remedy="$2"; echo "set-up: $1"; }

step="find Python >= 3.10"
remedy="install Python 3.10 or newer and name it: MST_PYTHON=/path/to/python3.11 bash tools/setup_env.sh"
if [[ "${MST_NO_VENV:-0}" == 1 ]]; then
  python="$(command -v "${MST_PYTHON:-python}" || true)"
  stamp_dir="${VIRTUAL_ENV:-${CONDA_PREFIX:-}}"
else
  python="$(command -v "${MST_PYTHON:-python3}" || true)"
  stamp_dir="$venv"
fi
[[ -n "$python" ]] || fail
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>"$log" || fail

fingerprint="$(cat "$root/pyproject.toml" "$root/constraints.txt" "${BASH_SOURCE[0]}" | cksum) $root"
stamp="${stamp_dir:+$stamp_dir/.mst-toolkit-setup}"
if [[ -n "$stamp" && -f "$stamp" && "$(head -n 1 "$stamp")" == "$fingerprint" ]]; then
  there="$(tail -n +2 "$stamp")" wanted="$extras" extras="$there"  # what is there stays
  for extra in ${wanted//,/ }; do [[ ",$there," == *",$extra,"* ]] || extras="${extras:+$extras,}$extra"; done
  if [[ "$extras" == "$there" ]]; then
    echo "set-up: $stamp_dir is up to date"
    exit 0
  fi
fi

if [[ "${MST_NO_VENV:-0}" != 1 ]]; then
  if [[ ! -x "$venv/bin/python" ]]; then
    say "make $venv with $("$python" --version)" \
      "install the venv module (Debian, Ubuntu: apt-get install python3-venv), or MST_NO_VENV=1 in an environment of yours"
    run "$python" -m venv "$venv"
  fi
  python="$venv/bin/python"
fi

pip=("$python" -m pip --disable-pip-version-check install -c "$root/constraints.txt")
say "install torch and torchvision (the largest download)" \
  "check network and free disk (about 8 GB); for another CUDA or CPU build install torch and torchvision yourself from pytorch.org, then MST_NO_VENV=1 bash tools/setup_env.sh"
run "${pip[@]}" torch torchvision

target="$root"
[[ -z "$extras" ]] || target="$root[$extras]"
say "install mst-toolkit${extras:+ with extras $extras}" \
  "read the lines above; if a package has no wheel for this Python, use Python 3.11: MST_PYTHON=python3.11, after removing $venv"
run "${pip[@]}" -e "$target"

if [[ ",$extras," == *,transfer,* ]]; then
  say "import OpenCV" \
    "apt-get install libgl1 libglib2.0-0, or: $python -m pip uninstall -y opencv-python && $python -m pip install --force-reinstall --no-deps -c constraints.txt opencv-python-headless"
  run "$python" -c 'import cv2'
  say "import mst_transfer" "read the lines above: they name the package that is missing or there twice"
  run env PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c 'import mst_transfer'
elif [[ ",$extras," == *,pretrain,* ]]; then
  say "import mst_pretrain.register" "read the lines above"
  run env PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c 'import mst_pretrain.register'
else
  say "import mst_pretrain.checkpoints" "read the lines above"
  run env PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" "$python" -c 'import mst_pretrain.checkpoints.conversion'
fi
# transfer includes pretrain
[[ ",$extras," != *,transfer,* || ",$extras," == *,pretrain,* ]] || extras="$extras,pretrain"
[[ -z "$stamp" ]] || printf '%s\n' "$fingerprint" "$extras" >"$stamp"
echo "set-up: ready ($("$python" --version), $python)"
