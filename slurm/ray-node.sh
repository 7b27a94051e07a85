#!/usr/bin/env bash
# One node of the Ray cluster of a Slurm job, started by sweep.sh on each of them: task 0 is the head. Ends with TERM.
#   srun --ntasks-per-node=1 slurm/ray-node.sh HOST:PORT
set -uo pipefail

export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0 # at TERM no other process is left to wait for
export RAY_worker_niceness=0 # with Ray's 15 a training would get no processor beside other work
head="$1" dir="/tmp/ray-$SLURM_JOB_ID-$SLURM_PROCID" over=0
role=(--head "--port=${head##*:}" --include-dashboard=false)
if ((SLURM_PROCID > 0)); then
  role=("--address=$head")
  until (: <"/dev/tcp/${head/://}") 2>/dev/null; do sleep 1; done
fi

# Again when it ended: Ray gives itself 30 s to start, which a busy node may need; and a node that was lost comes back.
# 200 MB for its object store: data lie in files, not in Ray.
trap 'over=1; kill "$ray"' TERM
for ((try = 0; try < 3 && over == 0; try++)); do
  ray start --block "${role[@]}" --temp-dir="$dir" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
    --object-store-memory=200000000 --dashboard-agent-listen-port=0 --disable-usage-stats &
  ray=$!
  while kill -0 "$ray" 2>/dev/null; do wait "$ray"; done # the trap ends a wait early
done
rm -rf "$dir"
((over)) || echo "Ray ended three times on $(hostname): the reason is above" >&2
((over || SLURM_PROCID > 0)) || scancel --signal=TERM "$SLURM_JOB_ID.$SLURM_STEP_ID" # without a head the cluster is lost
