# Sourced by the launching scripts: which Python, and torchrun with the processor's cores shared out.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -n "${PYTHON:-}" ]]; then python="$PYTHON"
elif [[ -z "${VIRTUAL_ENV:-}" && "${MST_NO_VENV:-0}" != 1 && -x "${MST_VENV:-$root/.venv}/bin/python" ]]; then
  python="${MST_VENV:-$root/.venv}/bin/python"
else python=python; fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
goes_on=()
[[ "${NNODES:-1}" != *:* ]] || goes_on=(--resume)  # where machines come and go, every start but the first goes on

whole() {  # NAME VALUE: bash runs $(...) in what it calculates with
  [[ "$2" =~ ^[0-9]+$ ]] || { echo "error: $1: a whole number is expected, got '$2'" >&2; exit 2; }
}

launch() {  # PROCESSES SCRIPT ARGUMENTS...
  local processes="$1" threads
  [[ "$processes" =~ ^[1-9][0-9]*$ ]] || { echo "error: number of processes expected, got '$processes'" >&2; exit 2; }
  threads=$(($(nproc 2>/dev/null || sysctl -n hw.ncpu) / processes))
  export OMP_NUM_THREADS="${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}"
  local meeting=(--node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
  if [[ "${NNODES:-1}" == *:* ]]; then  # machines may come and go
    # torch 2.14: the first machine tells its address in its first round alone, and one that joins later waits for it
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(--rdzv_backend=c10d --rdzv_endpoint="${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}" --rdzv_id="${JOB_ID:-mst}")
  fi
  exec "$python" -c 'from mst_pretrain.training.elastic import torchrun; torchrun()' \
    --nnodes="${NNODES:-1}" "${meeting[@]}" --max_restarts="${MAX_RESTARTS:-0}" --nproc_per_node="$processes" "${@:2}"
}

slurm_starts() {  # WORK_DIR: note the time, as its disk has it
  mkdir -p "$1" && touch "$1/.slurm_start"
}

requeue() {  # EXIT CODE of srun, WORK_DIR: queue a batch job again that may go on; ends
  # 75: stopped by a signal, with a checkpoint. 71, 137: a process or a machine was lost, LOST_RETRIES times
  local code="$1" again="${SLURM_RESTART_COUNT:-0}" queue=0 saved=""
  whole SLURM_RESTART_COUNT "$again"
  whole LOST_RETRIES "${LOST_RETRIES:-3}"
  # a process that is ended because another one refused its config says 75 too, but nothing was saved
  if [[ "$code" == 75 ]]; then saved="$(find "$2" -name '*.pth' -newer "$2/.slurm_start" | head -n 1)"; fi
  if [[ -n "$saved" || ("$code" =~ ^(71|137)$ && "$again" -lt "${LOST_RETRIES:-3}") ]]; then queue=1; fi
  if [[ -n "${SLURM_JOB_ID:-}" && "$queue" == 1 ]]; then
    echo "job $SLURM_JOB_ID ended with $code: queued again, it goes on from its newest checkpoint" >&2
    scontrol requeue "$SLURM_JOB_ID" || echo "it could not be queued again: start it as before" >&2
  fi
  exit "$code"
}
