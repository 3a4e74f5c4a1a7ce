# Sourced by the launching scripts: which Python, and torchrun with the processor's cores shared out.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -n "${PYTHON:-}" ]]; then python="$PYTHON"
elif [[ -z "${VIRTUAL_ENV:-}" && "${MST_NO_VENV:-0}" != 1 && -x "${MST_VENV:-$root/.venv}/bin/python" ]]; then
  python="${MST_VENV:-$root/.venv}/bin/python"
else python=python; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

launch() {  # PROCESSES SCRIPT ARGUMENTS...
  local processes="$1" threads
  [[ "$processes" =~ ^[1-9][0-9]*$ ]] || { echo "error: number of processes expected, got '$processes'" >&2; exit 2; }
  threads=$(($(nproc 2>/dev/null || sysctl -n hw.ncpu) / processes))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
  exec "$python" -c 'from mst_pretrain.training.launch import torchrun; torchrun()' \
    --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" --nproc_per_node="$processes" "${@:2}"
}
