#!/usr/bin/env bash
# A training on several machines as a batch job that is stopped in time, queued again, and goes on by itself.
# Usage: sbatch [-p PARTITION] [--nodes=2] [--time=24:00:00] tools/slurm_job.sh CONFIG WORK_DIR [train.py's arguments]
#SBATCH --job-name=mst
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=10
#SBATCH --time=24:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail
if [[ $# -lt 2 ]]; then sed -n '2,3s/^# //p' "$0" >&2; exit 2; fi
# Slurm runs a copy of this file: the repository is where sbatch was called, or MST_ROOT
source "${MST_ROOT:-${SLURM_SUBMIT_DIR:-.}}/tools/launch_env.sh"
whole SLURM_JOB_ID "${SLURM_JOB_ID:-0}"
export MASTER_PORT="${MASTER_PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 20000))}"  # two jobs may share a machine
slurm_starts "$2"
code=0
# since Slurm 22.05 srun does not take the processors of a task from sbatch
srun --kill-on-bad-exit=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-10}" \
  "$python" -u "$root/tools/train.py" "$1" --work-dir="$2" --launcher=slurm --resume "${@:3}" || code=$?
requeue "$code" "$2"
