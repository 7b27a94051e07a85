#!/usr/bin/env bash
# End the MLflow server and the PostgreSQL that start.sh started in DIR. Everything logged stays in DIR.
#   cluster/mlflow/stop.sh [DIR]
set -euo pipefail

dir=$(realpath -m "${1:-/tmp/mlflow-server}")
if [[ ! -e "$dir/.mlflow-server" ]]; then
  echo "start.sh has made no server in $dir" >&2
  exit 2
fi
PATH="$PATH:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)"
as=()
((EUID != 0)) || as=(setpriv --reuid="$(stat -c %U "$dir/postgres")" --regid="$(stat -c %G "$dir/postgres/data")" --clear-groups)

if [[ -e "$dir/mlflow.pid" ]]; then
  process=$(<"$dir/mlflow.pid")
  kill "$process" 2>/dev/null || true
  for ((tenth = 0; tenth < 100; tenth++)); do
    pgrep --session "$process" >/dev/null || break
    sleep 0.1
  done
  pkill -KILL --session "$process" || true # the server was started in a session of its own
  rm -f "$dir/mlflow.pid"
fi
"${as[@]}" pg_ctl --pgdata "$dir/postgres/data" --mode fast --wait --silent stop || true
