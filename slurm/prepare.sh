#!/usr/bin/env bash
# Text to shards on one node:
#   sbatch --cpus-per-task=16 slurm/prepare.sh TEXT... --out data/mine
#SBATCH --job-name=unsee-prepare
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch slurm/prepare.sh INPUT... --out DIR [--field NAME]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"
srun --ntasks=1 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" "${UNSEE:-$([[ -x .venv/bin/unsee ]] && echo .venv/bin/unsee || echo unsee)}" prepare "$@"
