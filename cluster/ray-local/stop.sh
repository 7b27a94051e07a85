#!/usr/bin/env bash
# End the Ray cluster that start.sh made in DIR, by the process numbers written there, and remove what it made.
# Not `ray stop`, which ends every Ray of this machine.
#   cluster/ray-local/stop.sh [DIR]
set -euo pipefail

dir=$(realpath -m "${1:-/tmp/ray-local}")
if [[ ! -e "$dir/.ray-local" ]]; then
  echo "start.sh has made no cluster in $dir" >&2
  exit 2
fi

# Workers first to last: the head ends last, so that no worker node reports it as lost.
for ((number = $(ls "$dir" | grep -c '^node-[0-9]*[.]pid$'); number >= 1; number--)); do
  process=$(<"$dir/node-$number.pid")
  kill "$process" 2>/dev/null || true
  for ((tenth = 0; tenth < 150; tenth++)); do
    pgrep --session "$process" >/dev/null || break
    sleep 0.1
  done
  pkill -KILL --session "$process" || true # the node was started in a session of its own
done
rm -rf "$dir"/node-[0-9]*.pid "$dir"/node-[0-9]*.log "$dir/ray" "$dir/token" "$dir/environment" \
  "$dir/.ray-local"
if ! rmdir "$dir" 2>/dev/null; then
  echo "left in $dir, since start.sh has not made it: $(ls -A "$dir" | tr '\n' ' ')" >&2
fi
