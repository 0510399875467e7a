#!/usr/bin/env bash
# A Slurm of two nodes on this machine, for tests: unpacked from Debian's packages into a folder, bound to the loopback address.
#
#   slurm.sh up FOLDER     gets and unpacks the packages where they are missing, starts munged, slurmctld and two slurmd
#   slurm.sh env FOLDER    prints what a shell needs to use it: eval "$(slurm.sh env FOLDER)"
#   slurm.sh down FOLDER   stops what `up` started, by its pid files, with all jobs
#
# Nothing is installed and nothing outside FOLDER is written. Without accounting, so that squeue lists how jobs end. It needs
# root, as slurmd starts jobs for their users. NODE_CPUS and NODE_MB: what a node offers (2 and 4000).
set -euo pipefail

PACKAGES=(slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge libmunge2 libhwloc15 libltdl7 libxnvctrl0 libjson-c5
    liblua5.3-0 libfreeipmi17 librrd8 libpmix2 libipmimonitoring6 libhttp-parser2.9 libyaml-0-2 libjwt0 librdkafka1 libnuma1)
ACTION=${1:?up, env or down}
mkdir -p "${2:?a folder}"
FOLDER=$(cd "$2" && pwd)
ROOT=$FOLDER/root
PLUGINS=$ROOT/usr/lib/x86_64-linux-gnu/slurm-wlm

# The executor plugin takes all SLURM_* variables away before it submits, so that the programs find their configuration by
# themselves: each is a script that names it.
wrap() {
    mkdir -p "$FOLDER/bin"
    local program
    for program in "$ROOT"/usr/bin/* "$ROOT"/usr/sbin/*; do
        cat > "$FOLDER/bin/$(basename "$program")" << SCRIPT
#!/bin/sh
export SLURM_CONF='$FOLDER/slurm.conf'
LD_LIBRARY_PATH='$ROOT/usr/lib/x86_64-linux-gnu:$PLUGINS' exec '$program' "\$@"
SCRIPT
        chmod 755 "$FOLDER/bin/$(basename "$program")"
    done
}

environment() {
    echo "export PATH='$FOLDER/bin':\"\$PATH\""
}

unpack() {
    [ -x "$ROOT/usr/sbin/slurmstepd" ] && return
    mkdir -p "$FOLDER/packages" "$ROOT"
    cd "$FOLDER/packages"
    local available=()
    for package in "${PACKAGES[@]}"; do
        apt-cache show "$package" > /dev/null 2>&1 && available+=("$package")
    done
    apt-get download -qq "${available[@]}" 2> "$FOLDER/apt.log" || {
        echo "ERROR: Debian's packages of Slurm cannot be downloaded: $(tail -1 "$FOLDER/apt.log")" >&2
        exit 3
    }
    for package in *.deb; do dpkg -x "$package" "$ROOT"; done
    for program in slurmctld slurmd slurmstepd; do  # names that the installation of a package would make
        [ -e "$ROOT/usr/sbin/$program" ] || ln -s "$program-wlm" "$ROOT/usr/sbin/$program"
    done
    cd - > /dev/null
}

configure() {
    local host
    host=$(hostname -s)
    mkdir -p "$FOLDER"/{run,log,state,spool}
    chmod 755 "$FOLDER" "$FOLDER/run"
    cat > "$FOLDER/slurm.conf" << CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$((PORT))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$FOLDER/run/munge.sock
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
PluginDir=$PLUGINS
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
ReturnToService=2
SlurmdParameters=config_overrides
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
JobRequeue=0
KillWait=2
SlurmdTimeout=20
MinJobAge=600
SlurmctldPidFile=$FOLDER/run/slurmctld.pid
SlurmdPidFile=$FOLDER/run/slurmd-%n.pid
SlurmctldLogFile=$FOLDER/log/slurmctld.log
SlurmdLogFile=$FOLDER/log/slurmd-%n.log
StateSaveLocation=$FOLDER/state
SlurmdSpoolDir=$FOLDER/spool/%n
AccountingStorageType=accounting_storage/none
NodeName=node1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=${NODE_CPUS:-2} RealMemory=${NODE_MB:-4000} State=UNKNOWN
NodeName=node2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=${NODE_CPUS:-2} RealMemory=${NODE_MB:-4000} State=UNKNOWN
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
CONF
    echo "CgroupAutomount=no" > "$FOLDER/cgroup.conf"
}

stop() {
    [ -s "$1" ] || return 0
    local pid
    pid=$(cat "$1")
    kill "$pid" 2> /dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$pid" 2> /dev/null || return 0
        sleep 0.1
    done
    kill -9 "$pid" 2> /dev/null || true
}

case $ACTION in
    env)
        environment
        ;;
    down)
        eval "$(environment)"
        scancel --quiet --user "$(id -un)" 2> /dev/null || true
        for name in slurmd-node1 slurmd-node2 slurmctld munged; do stop "$FOLDER/run/$name.pid"; done
        # Processes of a killed job that are left: they have the number of a job, and this Slurm on their PATH.
        for variables in /proc/[0-9]*/environ; do
            if grep -qs "SLURM_JOB_ID=" "$variables" && grep -qs "$FOLDER/bin" "$variables"; then
                kill -9 "$(basename "$(dirname "$variables")")" 2> /dev/null || true
            fi
        done
        ;;
    up)
        [ "$(id -u)" = 0 ] || { echo "ERROR: slurmd starts jobs for their users, which needs root" >&2; exit 3; }
        unpack
        PORT=${SLURM_PORT:-$((20000 + RANDOM % 20000))}
        configure
        wrap
        eval "$(environment)"
        if ! munge -S "$FOLDER/run/munge.sock" -n > /dev/null 2>&1; then
            [ -s "$FOLDER/munge.key" ] || (umask 077; head -c 1024 /dev/urandom > "$FOLDER/munge.key")
            munged --force --socket="$FOLDER/run/munge.sock" --key-file="$FOLDER/munge.key" --pid-file="$FOLDER/run/munged.pid" \
                --log-file="$FOLDER/log/munged.log" --seed-file="$FOLDER/run/munged.seed" > "$FOLDER/log/munged.out" 2>&1
        fi
        slurmctld -c
        for node in node1 node2; do
            mkdir -p "$FOLDER/spool/$node"
            slurmd -N "$node" -d "$ROOT/usr/sbin/slurmstepd"
        done
        for _ in $(seq 100); do
            [ "$(sinfo --noheader --Node --format=%T 2> /dev/null | grep -c idle)" = 2 ] && exit 0
            sleep 0.2
        done
        echo "ERROR: Slurm's nodes did not come up; see $FOLDER/log" >&2
        exit 1
        ;;
    *)
        echo "ERROR: unknown action $ACTION; up, env or down" >&2
        exit 2
        ;;
esac
