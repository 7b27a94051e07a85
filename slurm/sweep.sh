#!/usr/bin/env bash
# A sweep on any number of nodes: a Ray cluster over the nodes of this job, and on the first one `unsee sweep`.
#   sbatch --nodes=2 --cpus-per-task=16 slurm/sweep.sh SWEEP.yaml [section.key=value ...]
#   sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=96 slurm/sweep.sh --resume DIR
# Nodes may be shared: Ray takes this job's processors and GPUs, with ports, a folder and a token of its own. (`ray
# symmetric-run` would not start beside another Ray, ends all of a node by `ray stop`, and passes no signal on.)
# Before the time limit, or when preempted, Slurm sends USR1: the sweep stops, and the job requeues itself, at most
# UNSEE_RESTARTS times (100), and not after two restarts in a row that got no step further. Trials go on from their
# last checkpoints. `unsee sweep --status DIR` and `--stop DIR` work from any machine that sees DIR.
#SBATCH --job-name=unsee-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --requeue
#SBATCH --signal=B:USR1@120
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out
set -uo pipefail

(($# > 0)) || { echo "usage: sbatch slurm/sweep.sh SWEEP.yaml [section.key=value ...] | --resume DIR" >&2; exit 2; }
cd "${SLURM_SUBMIT_DIR:-.}" || exit 2
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p'):$((20000 + SLURM_JOB_ID % 12768))
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n') # in the environment, which only you can read
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
PATH="$(realpath "$(dirname "${UNSEE:-$([[ -x .venv/bin/unsee ]] && echo .venv/bin/unsee || command -v unsee)}")"):$PATH"
export UNSEE_SWEEP_MARK="$PWD/.unsee-sweep-$SLURM_JOB_ID" # written when a signal has stopped the sweep: then the job is requeued
history="$UNSEE_SWEEP_MARK.history"; rm -f "$UNSEE_SWEEP_MARK"

# When a node is lost, its trials continue on other nodes, and the job goes on.
srun --ntasks-per-node=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=0 --open-mode=append \
  --output="slurm-%x-%j-ray.out" slurm/ray-node.sh "$head" &
cluster=$!
all="import ray, time; ray.init(logging_level=40)
while sum(node['Alive'] for node in ray.nodes()) < $SLURM_JOB_NUM_NODES: time.sleep(1)"
(
  export RAY_ADDRESS="$head"
  timeout 600 bash -c 'until (: <"/dev/tcp/${1/://}") && timeout 60 python -c "$2"; do kill -0 "$3" || exit; sleep 1; done' \
    - "$head" "$all" "$cluster" 2>/dev/null && exec unsee sweep "$@"
  echo "not all nodes have joined Ray: see slurm-$SLURM_JOB_NAME-$SLURM_JOB_ID-ray.out" >&2
  exit 1
) &
driver=$!
trap 'asked=1; kill -USR1 "$driver"' USR1 # to the driver only: the signal would end Ray
wait "$driver"; code=$?
while kill -0 "$driver" 2>/dev/null; do wait "$driver"; code=$?; done # the trap ends a wait early
scancel --signal=TERM "$SLURM_JOB_ID.0"; timeout 60 tail --pid="$cluster" -f /dev/null || kill "$cluster"

((code == 138 && ${asked:-0})) && echo "its start" >"$UNSEE_SWEEP_MARK" # the signal came before the sweep handled signals
[[ -s $UNSEE_SWEEP_MARK ]] || { ((code == 0)) && rm -f "$history"; exit "$code"; }
cat "$UNSEE_SWEEP_MARK" >>"$history"
if (($(wc -l <"$history") > ${UNSEE_RESTARTS:-100})); then
  echo "stopped ${UNSEE_RESTARTS:-100} times: not requeued. The same command continues." >&2
elif (($(tail -n 3 "$history" | uniq | wc -l) == 1 && $(wc -l <"$history") >= 3)); then
  echo "two restarts got no step further than $(cat "$UNSEE_SWEEP_MARK"): not requeued. Allow more time a start." >&2
else
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
