#!/usr/bin/env bash
# An MLflow server with PostgreSQL on this one machine, both reached from this machine only. Debian, after
# `apt-get install postgresql` and `pip install -c constraints.txt -e .[mlflow-server]`. In the same shell:
#   cluster/mlflow/start.sh [DIR]             # DIR: database, artifacts, passwords, logs; default /tmp/mlflow-server
#   set -a; . DIR/environment; set +a         # MLFLOW_TRACKING_URI (and the user and password, with MLFLOW_AUTH)
#   unsee train ...; unsee sweep ...
#   cluster/mlflow/stop.sh [DIR]              # ends both; DIR keeps everything, and start.sh continues with it
# MLFLOW_AUTH=true: everybody gives a name and a password (see cluster/README.md). MLFLOW_PORT: default a free one.
# PostgreSQL refuses to run as root: started by root, it runs as POSTGRES_USER (postgres), who must reach DIR.
set -euo pipefail

root=$(realpath "$(dirname "$0")/../..")
dir=$(realpath -m "${1:-/tmp/mlflow-server}")
PATH="$PATH:$root/.venv/bin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)"
as=()
((EUID != 0)) || as=(setpriv --reuid="${POSTGRES_USER:-postgres}" --regid="${POSTGRES_USER:-postgres}" --clear-groups)

for program in initdb pg_ctl mlflow; do
  if ! command -v "$program" >/dev/null; then
    echo "$program is not installed: apt-get install postgresql; pip install -e .[mlflow-server]" >&2
    exit 2
  fi
done
running() { [[ -e "$dir/mlflow.pid" && $(ps -o stat= -p "$(<"$dir/mlflow.pid")") == [^Z]* ]]; }
if running; then
  echo "a server runs in $dir: cluster/mlflow/stop.sh $dir ends it" >&2
  exit 2
fi
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
secret() { python3 -c 'import secrets; print(secrets.token_urlsafe(24))'; }

umask 077 # what is made here is secret

if [[ ! -e "$dir/.mlflow-server" && -e $dir && ( ! -d $dir || $(ls -A "$dir") ) ]]; then
  echo "DIR = $dir is there, and neither empty nor a server's folder: write another" >&2
  exit 2
fi
if [[ ! -e "$dir/.mlflow-server" ]]; then
  mkdir -p "$dir/postgres" "$dir/artifacts"
  chmod 0711 "$dir"
  database=$(secret)
  echo "$database" >"$dir/postgres/password"
  ((EUID != 0)) || chown --recursive "${POSTGRES_USER:-postgres}" "$dir/postgres"
  if ! "${as[@]}" test -w "$dir/postgres"; then
    echo "DIR = $dir cannot be reached by the user ${POSTGRES_USER:-postgres}: use a folder below /tmp or /srv" >&2
    exit 2
  fi
  "${as[@]}" initdb --pgdata "$dir/postgres/data" --username mlflow --auth scram-sha-256 --encoding UTF8 \
    --pwfile "$dir/postgres/password" >"$dir/initdb.log" || { cat "$dir/initdb.log" >&2; exit 1; }
  rm "$dir/postgres/password"
  cat >"$dir/settings" <<SETTINGS
POSTGRES_PORT=$(port)
POSTGRES_PASSWORD=$database
MLFLOW_PORT=${MLFLOW_PORT:-$(port)}
MLFLOW_AUTH_ADMIN_PASSWORD=$(secret)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret)
SETTINGS
  touch "$dir/.mlflow-server" # what this script and stop.sh know the folder by
fi
set -a
. "$dir/settings"
set +a

# One folder for the log that PostgreSQL's user may write; connections by TCP on this machine, with the password.
"${as[@]}" pg_ctl --pgdata "$dir/postgres/data" --log "$dir/postgres/log" --wait --silent start \
  --options "-p $POSTGRES_PORT -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
uri="postgresql+psycopg2://mlflow:$POSTGRES_PASSWORD@127.0.0.1:$POSTGRES_PORT"
database() { PGPASSWORD="$POSTGRES_PASSWORD" psql --quiet --host 127.0.0.1 --port "$POSTGRES_PORT" --username mlflow "$@"; }
for name in mlflow mlflow_auth; do
  [[ $(database postgres -Atc "select 1 from pg_database where datname = '$name'") ]] || database postgres -c "create database $name"
done

app=()
echo "MLFLOW_TRACKING_URI=http://127.0.0.1:$MLFLOW_PORT" >"$dir/environment"
if [[ ${MLFLOW_AUTH:-false} == true ]]; then
  export MLFLOW_AUTH_CONFIG_PATH="$dir/auth.ini"
  cat >"$dir/auth.ini" <<INI
[mlflow]
default_permission = READ
database_uri = $uri/mlflow_auth
admin_username = admin
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
INI
  app=(--app-name basic-auth)
  echo "MLFLOW_TRACKING_USERNAME=admin" >>"$dir/environment"
  echo "MLFLOW_TRACKING_PASSWORD=$MLFLOW_AUTH_ADMIN_PASSWORD" >>"$dir/environment"
fi
# The database's password in a variable, not in the command line, where everybody on this machine could read it.
export MLFLOW_BACKEND_STORE_URI="$uri/mlflow" MLFLOW_DISABLE_TELEMETRY=true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # seven processes of 120 MB for jobs of language models
setsid mlflow server "${app[@]}" --host 127.0.0.1 --port "$MLFLOW_PORT" \
  --artifacts-destination "$dir/artifacts" --workers "${MLFLOW_WORKERS:-1}" </dev/null >>"$dir/mlflow.log" 2>&1 &
echo $! >"$dir/mlflow.pid"

for ((second = 0; second < 300; second++)); do
  if python3 -c "import urllib.request as r; r.urlopen('http://127.0.0.1:$MLFLOW_PORT/health', timeout=2)" 2>/dev/null; then
    echo "set -a; . '$dir/environment'; set +a"
    exit 0
  fi
  running || break
  sleep 1
done
tail -n 20 "$dir/mlflow.log" >&2
echo "MLflow did not start; the logs are in $dir" >&2
exit 1
