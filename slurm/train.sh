#!/usr/bin/env bash
# One run on any number of nodes, one task a rank. Submit from the repository; the command line of sbatch
# overrides the lines below. The same command again resumes the run.
#   sbatch slurm/train.sh configs/unsee-vicreg.yaml data.shards=data/mine
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 slurm/train.sh CONFIG [key=value ...]
# Ask for GPUs by node (--gpus-per-node): every rank picks its own among those of its node; --gpus-per-task=1 works, too.
# What requeues the job: USR1 (before the time limit, or preempted), a killed slurmstepd: all ranks save first; a file
# system or network that failed for a while (74): from the newest checkpoint; a node
# that goes down, whoever sees it first, Slurm or the end of this script. At most UNSEE_RESTARTS times (100), and not
# after two restarts in a row that got no step further. What ends it: the last step (0), a mistake (2), a rank that
# hangs or dies (3), scancel, which saves; the same sbatch continues.
# In an array, give every task a run of its own: run.dir='runs/$SLURM_ARRAY_TASK_ID' (quoted; it is filled in here).
#SBATCH --job-name=unsee-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -uo pipefail

(($#)) || { echo "usage: sbatch slurm/train.sh CONFIG.yaml [section.key=value ...]" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
arguments=("${@//\$SLURM_ARRAY_TASK_ID/${SLURM_ARRAY_TASK_ID:-0}}")

# The ranks meet at the first node, at a port below 32768, where Linux begins to give ports to outgoing connections;
# jobs that run at one time have different ones. Each rank finds its number in SLURM_*.
# Its address, not its name: Slurm's name of a node need not be one that the network knows.
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + SLURM_JOB_ID % 12768))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# A rank writes the step of a verified checkpoint here when a signal or a passing fault has ended the run.
export UNSEE_STOP_MARK="$PWD/.unsee-stopped-$SLURM_JOB_ID"
history="$UNSEE_STOP_MARK.history"
rm -f "$UNSEE_STOP_MARK"
trap 'scancel --signal=USR1 "$SLURM_JOB_ID"' USR1 # to the ranks, not to this shell

# One rank that fails ends all: without --kill-on-bad-exit the others would wait for it.
srun --kill-on-bad-exit=1 --wait=60 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python)}" -m unsee_dist.train --config "${arguments[@]}" &
step=$!
wait "$step"; code=$?
while kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done # the trap ends a wait early

if [[ -s $UNSEE_STOP_MARK ]]; then
  cat "$UNSEE_STOP_MARK" >>"$history"
elif ((code <= 2)) || timeout 90 srun --overlap --ntasks-per-node=1 true; then
  rm -f "$history"; exit "$code" # all nodes answer: no node is the cause
fi
if ((${SLURM_RESTART_COUNT:-0} >= ${UNSEE_RESTARTS:-100})); then
  echo "restarted ${SLURM_RESTART_COUNT:-0} times: not requeued. The same command continues the run." >&2
elif [[ -s $UNSEE_STOP_MARK && $(tail -n 3 "$history" | uniq -c) =~ ^\ *3\  ]]; then
  echo "two restarts got no step further than $(<"$UNSEE_STOP_MARK"): not requeued. Allow more time a start." >&2
else
  exec scontrol requeue "$SLURM_JOB_ID"
fi
rm -f "$UNSEE_STOP_MARK" "$history"
exit "$code"
