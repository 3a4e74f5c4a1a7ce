#!/usr/bin/env bash
# Train on a Slurm cluster; the same command goes on with the run, which SIGUSR1 has stopped before the time limit.
# Usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=10 STOP_SECONDS=120 SRUN_ARGS=] bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [train.py's arguments]
# Exit code 75: stopped, to be continued. In a batch job that may be requeued (tools/slurm_job.sh) it is, by itself.
set -euo pipefail
if [[ $# -lt 4 ]]; then sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 2; fi
source "$(dirname "${BASH_SOURCE[0]}")/launch_env.sh"
gpus="${GPUS:-8}"
whole GPUS "$gpus"
per_node="${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}"
read -r -a srun_args <<<"${SRUN_ARGS:-}"
slurm_starts "$4"
# 10 processors: the 8 data workers of the pretraining configs, the process itself, one to spare
code=0
srun -p "$1" --job-name="$2" --gres=gpu:"$per_node" --ntasks="$gpus" --ntasks-per-node="$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-10}" --kill-on-bad-exit=1 --signal=USR1@"${STOP_SECONDS:-120}" \
  ${srun_args[@]+"${srun_args[@]}"} \
  "$python" -u "$root/tools/train.py" "$3" --work-dir="$4" --launcher=slurm --resume "${@:5}" || code=$?
requeue "$code" "$4"
