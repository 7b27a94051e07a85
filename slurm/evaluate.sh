#!/usr/bin/env bash
# A model on MTEB: the jobs of an array share the tasks, then one job prints all scores together:
#   job=$(sbatch --parsable --array=1-8 slurm/evaluate.sh MODEL --tier v1)
#   sbatch --dependency=afterany:$job slurm/evaluate.sh MODEL --tier v1
# Nodes without a network: first, where there is one, with the same HF_HOME:
#   unsee evaluate MODEL --tier v1 --prefetch
#SBATCH --job-name=unsee-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --output=slurm-%x-%A-%a.out
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch [--array=1-N] slurm/evaluate.sh MODEL --tier NAME | --tasks DIR" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

shard=()
if [[ -n "${SLURM_ARRAY_TASK_ID:-}" ]]; then
  shard=(--shard "$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi
srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${UNSEE:-$([[ -x .venv/bin/unsee ]] && echo .venv/bin/unsee || echo unsee)}" evaluate "$@" ${shard[@]+"${shard[@]}"}
