#!/usr/bin/env bash
# A real Slurm cluster of N nodes (2), n1 to nN, on this one machine: munged, slurmctld and a slurmd for each node.
# Run as root on Debian after `apt-get install slurm-wlm munge`. Then, in the same shell:
#   cluster/slurm-local/start.sh [DIR [N]]        # DIR: configuration, state and logs; default /tmp/slurm-local
#   export SLURM_CONF=DIR/slurm.conf
#   sbatch --nodes=2 slurm/train.sh CONFIG ...
#   cluster/slurm-local/stop.sh [DIR]
# SLURM_LOCAL_CPUS: processors each node claims to have (default: this machine's number).
set -euo pipefail

dir=$(realpath -m "${1:-/tmp/slurm-local}")
nodes="${2:-2}"
cpus="${SLURM_LOCAL_CPUS:-$(nproc)}"

if ! [[ $nodes =~ ^[1-9][0-9]*$ ]]; then
  echo "N = $nodes is not a number of nodes: write 1 or more" >&2
  exit 2
fi

if ((${#dir} > 70)); then
  echo "DIR = $dir has ${#dir} letters, and slurmd's sockets below it must stay within 107: use one of at most 70" >&2
  exit 2
fi

if ((EUID != 0)); then
  echo "slurmd starts the tasks of others: run $0 as root" >&2
  exit 2
fi
for program in munged mungekey slurmctld slurmd sbatch; do
  if ! command -v "$program" >/dev/null; then
    echo "$program is not installed: apt-get install slurm-wlm munge" >&2
    exit 2
  fi
done
if [[ -e "$dir/.slurm-local" ]]; then
  echo "$dir has a cluster: run cluster/slurm-local/stop.sh $dir first" >&2
  exit 2
fi
if [[ $dir == *[[:space:]]* ]]; then
  echo "DIR = $dir has a blank in it, which Slurm's configuration cannot hold: write another" >&2
  exit 2
fi
if [[ -e $dir && ( ! -d $dir || $(ls -A "$dir") ) ]]; then
  echo "DIR = $dir is there, and not an empty folder: write another, since stop.sh removes what this script makes in it" >&2
  exit 2
fi
mkdir -p "$dir/state"
touch "$dir/.slurm-local" # what stop.sh knows the folder by
chmod 0755 "$dir"

# The daemons' own munge, beside a system's: its key and socket lie in DIR.
mungekey --create --keyfile "$dir/munge.key" --bits 1024
munged --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
  --log-file="$dir/munged.log" --seed-file="$dir/munge.seed" --force

# Ports are free ones: a second cluster on this machine is possible.
read -r control first <<<"$(python3 - "$nodes" <<'PY'
import socket
import sys
def free(count):
    while True:
        sockets = [socket.socket() for _ in range(count)]
        try:
            sockets[0].bind(("127.0.0.1", 0))
            start = sockets[0].getsockname()[1]
            for offset, each in enumerate(sockets[1:], start=1):
                each.bind(("127.0.0.1", start + offset))
            return start
        except OSError:
            continue
        finally:
            for each in sockets:
                each.close()
print(free(1), free(int(sys.argv[1])))
PY
)"

host=$(hostname -s)
memory_mb=$(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
cat >"$dir/slurm.conf" <<CONF
ClusterName=local
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
# ranks meet at a port made of the job's number: not at that of another cluster on this machine, nor at slurmd's
FirstJobId=$((first + 100))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
CredType=cred/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool-%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
# patient, because all of it shares one machine with what it runs
MessageTimeout=30
TCPTimeout=10
BatchStartTimeout=120
SlurmctldTimeout=30
SlurmdTimeout=30
InactiveLimit=0
KillWait=5
MinJobAge=600
NodeName=n[1-$nodes] NodeHostname=$host NodeAddr=127.0.0.1 Port=[$first-$((first + nodes - 1))] CPUs=$cpus RealMemory=$memory_mb State=UNKNOWN
PartitionName=all Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF

export SLURM_CONF="$dir/slurm.conf"
slurmctld
for ((number = 1; number <= nodes; number++)); do
  mkdir -p "$dir/spool-n$number"
  slurmd -N "n$number"
done

for ((second = 0; second < 120; second++)); do
  if [[ $(sinfo --noheader --states=idle --format=%D 2>/dev/null) == "$nodes" ]]; then
    sinfo
    echo "export SLURM_CONF=$SLURM_CONF"
    exit 0
  fi
  sleep 1
done
echo "the nodes are not idle after 120 s; the logs are in $dir" >&2
sinfo >&2 || true
exit 1
