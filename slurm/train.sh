#!/usr/bin/env bash
# One run on any number of nodes, one task a rank. Submit from the repository; the command line of sbatch
# overrides the lines below. The same command again resumes the run.
#   sbatch slurm/train.sh configs/unsee-vicreg.yaml data.shards=data/mine
#   sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=12 slurm/train.sh CONFIG [key=value ...]
# Ask for GPUs by node (--gpus-per-node), not by task: every rank picks its own among those of its node.
#SBATCH --job-name=unsee-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2
#SBATCH --output=slurm-%x-%j.out
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch slurm/train.sh CONFIG.yaml [section.key=value ...]" >&2
  exit 2
fi
cd "${SLURM_SUBMIT_DIR:-.}"

# The ranks meet at the first node, at a port no other job of this cluster has; each finds its number in SLURM_*.
# Its address, not its name: Slurm's name of a node need not be one that the network knows.
read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
MASTER_ADDR=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-${SLURM_CPUS_PER_TASK:-1}}"

# One rank that fails ends all: without --kill-on-bad-exit the others would wait for it.
srun --kill-on-bad-exit=1 --wait=60 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
  "${PYTHON:-.venv/bin/python}" unsee_dist/train.py --config "$@"
