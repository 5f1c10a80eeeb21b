#!/usr/bin/env bash
# Trains on the nodes of a SLURM cluster, one process for each GPU; the arguments are those of
# launch/train.py, the workdir on a file system that all nodes share:
#
#   sbatch --nodes=2 launch/slurm.sh --config=configs/digits.py --workdir=/shared/runs/a
#
# Preempted, or two minutes before its time is over, the run is asked to save, and queued again;
# it goes on from its workdir. What sbatch is given comes before the settings here.
#SBATCH --job-name=lt_jax
#SBATCH --nodes=1
# JAX gives the process with local number N the GPU with number N: as many tasks as GPUs.
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=lt_jax-%j.log
# To this script alone, which hands it on.
#SBATCH --signal=B:TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
PYTHON=${PYTHON:-.venv/bin/python}
workdir=
before=
for argument; do
  case $argument in --workdir=* | -workdir=*) workdir=${argument#*=} ;; esac
  case $before in --workdir | -workdir) workdir=$argument ;; esac
  before=$argument
done

asked=
told=
interrupted=
stop() {
  asked=yes
  told=yes
  interrupted=yes
  # To the processes of the steps alone; srun would answer SIGTERM by killing them.
  scancel --signal=TERM "$SLURM_JOB_ID" 2> /dev/null || true
}
trap stop TERM

# srun does not ask sbatch how many cores a process has.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-8}"
srun --kill-on-bad-exit=1 "$PYTHON" launch/train.py "$@" --distributed &
step=$!
while :; do
  interrupted=
  status=0
  wait "$step" || status=$?
  # A trapped signal ends wait, not the step, which still saves.
  [ -n "$interrupted" ] || break
done
# Preemption may ask the processes of the step alone: then a summary is missing.
[ ! -d "$workdir" ] || [ -e "$workdir/summary.json" ] || asked=yes
# 143: asked while it loaded, with nothing to save. Only if it was by us: where a task fails, srun
# ends the others, which would fail again.
[ "$status" -ne 143 ] || asked=$told
# A job that somebody cancelled is no longer running; SLURM itself queues one that was preempted.
state=$(squeue -h -j "$SLURM_JOB_ID" -o %T 2> /dev/null || true)
if { [ "$status" -eq 0 ] || [ "$status" -eq 143 ]; } && [ -n "$asked" ] && [ "${state:-RUNNING}" = RUNNING ]; then
  scontrol requeue "$SLURM_JOB_ID" || true # it may have been queued already
fi
exit "$status"
