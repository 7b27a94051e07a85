#!/usr/bin/env bash
# A real Ray cluster of N raylets (2) on this one machine, each as if it were a node of its own, with token
# authentication. Then, in the same shell:
#   cluster/ray-local/start.sh [DIR [N]]          # DIR: token, logs and sessions; default /tmp/ray-local
#   set -a; . DIR/environment; set +a             # RAY_ADDRESS and what else reaches it
#   unsee sweep ...
#   cluster/ray-local/stop.sh [DIR]
# RAY_LOCAL_CPUS: processors each node claims to have (1). RAY_LOCAL_STORE_MB: its object store (100).
# RAY_LOCAL_DASHBOARD=true: the dashboard as well; its address is in DIR/node-1.log.
# DIR/node-K.pid holds the process of node K: killing it takes the node down and all that ran on it.
set -euo pipefail

root=$(realpath "$(dirname "$0")/../..")
dir=$(realpath -m "${1:-/tmp/ray-local}")
nodes="${2:-2}"
cpus="${RAY_LOCAL_CPUS:-1}"
PATH="$PATH:$root/.venv/bin"

if ! [[ $nodes =~ ^[1-9][0-9]*$ ]]; then
  echo "N = $nodes is not a number of nodes: write 1 or more" >&2
  exit 2
fi
if ((${#dir} > 38)); then
  echo "DIR = $dir has ${#dir} letters, and Ray's sockets below it must stay within 107: use one of at most 38" >&2
  exit 2
fi
if ! command -v ray >/dev/null; then
  echo "ray is not installed: run make, or put it on the PATH" >&2
  exit 2
fi
if [[ -e "$dir/.ray-local" ]]; then
  echo "$dir has a cluster: run cluster/ray-local/stop.sh '$dir' first" >&2
  exit 2
fi
if [[ -e $dir && ( ! -d $dir || $(ls -A "$dir") ) ]]; then
  echo "DIR = $dir is there, and not an empty folder: write another, since stop.sh removes what this script makes in it" >&2
  exit 2
fi
mkdir -p "$dir"
touch "$dir/.ray-local" # what stop.sh knows the folder by

# Whoever knows the token can run code here as you: only you may read it.
(umask 077 && python3 -c "import secrets; print(secrets.token_hex(32), end='')" >"$dir/token")
control=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
{
  echo "RAY_ADDRESS=127.0.0.1:$control"
  echo "RAY_AUTH_MODE=token"
  printf 'RAY_AUTH_TOKEN_PATH=%q\n' "$dir/token"
} >"$dir/environment"
# Ray lets no second node join at 127.0.0.1, so its ports are open to the network: the token is what guards them.
mkdir -m 700 "$dir/ray" # Ray makes its own folder, the one below, writable for everybody
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$dir/token" RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=0
export RAY_worker_niceness=0 # Ray's 15 would starve a training beside anything else
unset RAY_ADDRESS

common=(--block "--num-cpus=$cpus" --temp-dir="$dir/ray/t" --disable-usage-stats
  --object-store-memory="$((${RAY_LOCAL_STORE_MB:-100} * 1000000))" --dashboard-agent-listen-port=0)
head=(--head "--port=$control" --include-dashboard="${RAY_LOCAL_DASHBOARD:-false}" --dashboard-port=0)

# Nodes start one after another: the second finds the first by the session that it writes.
for ((number = 1; number <= nodes; number++)); do
  role=("${head[@]}")
  ((number == 1)) || role=("--address=127.0.0.1:$control")
  setsid ray start "${common[@]}" "${role[@]}" </dev/null >"$dir/node-$number.log" 2>&1 &
  echo $! >"$dir/node-$number.pid"
  for ((tenth = 0; tenth < 1200; tenth++)); do
    grep -q "Ray runtime started" "$dir/node-$number.log" && break
    if ! kill -0 "$(<"$dir/node-$number.pid")" 2>/dev/null; then
      cat "$dir/node-$number.log" >&2
      echo "node $number ended at once: see above" >&2
      exit 1
    fi
    sleep 0.1
  done
  if ((tenth == 1200)); then
    echo "node $number did not start in 120 s; the logs are in $dir" >&2
    exit 1
  fi
done
cat "$dir/environment"
