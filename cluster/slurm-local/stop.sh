#!/usr/bin/env bash
# End the cluster that start.sh made in DIR, by the process numbers written there, and remove what it made.
#   cluster/slurm-local/stop.sh [DIR]
set -euo pipefail

dir=$(realpath -m "${1:-/tmp/slurm-local}")
if [[ ! -e "$dir/.slurm-local" ]]; then
  echo "start.sh has made no cluster in $dir" >&2
  exit 2
fi
export SLURM_CONF="$dir/slurm.conf"
scancel --state=RUNNING --user="$(id -un)" 2>/dev/null || true
scancel --user="$(id -un)" 2>/dev/null || true

for file in "$dir"/slurmd-n*.pid "$dir/slurmctld.pid" "$dir/munged.pid"; do
  [[ -e "$file" ]] || continue
  process=$(<"$file")
  kill "$process" 2>/dev/null || continue
  for ((tenth = 0; tenth < 100; tenth++)); do
    kill -0 "$process" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$process" 2>/dev/null || true
done
rm -rf "$dir"/slurm.conf "$dir"/state "$dir"/spool-n[0-9]* "$dir"/slurmd-n[0-9]*.{pid,log} "$dir"/slurmctld.{pid,log} \
  "$dir"/munge.{key,seed,socket,socket.lock} "$dir"/munged.{pid,log} "$dir/.slurm-local"
if ! rmdir "$dir" 2>/dev/null; then
  echo "left in $dir, since start.sh has not made it: $(ls -A "$dir" | tr '\n' ' ')" >&2
fi
