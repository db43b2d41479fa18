# run_once, above, is what this job is for. It runs as a child, so that this shell sees how it ends.
leaving=
started=
child=
trap 'leaving=1; kill -USR1 "$child" 2>/dev/null' USR1 # --signal=B: reaches this shell alone
trap 'leaving=1' TERM                                  # SLURM signals all processes of a job
trap 'started=1' USR2                                  # from the child: common/slurm.py
export GENERATE_IMAGES_KEEPER=$$

await() {
    local last
    while wait "$child"; status=$?; kill -0 "$child" 2>/dev/null; do :; done # interrupted by a trap
    wait "$child" 2>/dev/null
    last=$? # 127: nothing more is known than the first wait has said
    [[ $last == 127 ]] || status=$last
}

run_child() {
    run_once &
    child=$!
    await
}

nap() {
    sleep "$1" &
    child=$!
    await
}

say() { echo "$(date -u '+%Y-%m-%d %H:%M:%SZ') $*"; }

node=${SLURMD_NODENAME:-$(hostname -s)}
array=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
me=$array${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
most_restarts=20

# The nodes that the pending tasks keep off.
excluded() {
    scontrol show job "$array" | awk -v RS= '
        /JobState=PENDING/ && match($0, /ExcNodeList=[^ \n]+/) {
            list = substr($0, RSTART + 12, RLENGTH - 12)
            if (list != "(null)") print list
            exit
        }'
}

# exclude JOB: it is not to start on this node. At most half of the partition's nodes are excluded.
exclude() {
    local listed names nodes
    listed=$(excluded)
    [[ -z $listed ]] || names=$(scontrol show hostnames "$listed")
    if ! grep -qx "$node" <<<"$names"; then
        nodes=$(sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --format=%N | sort -u)
        if ((2 * ($(grep -c . <<<"$names") + 1) > $(grep -c . <<<"$nodes"))); then
            say "half of the nodes are excluded already: $node stays"
            return
        fi
        listed=${listed:+$listed,}$node
    fi
    scontrol update "JobId=$1" "ExcNodeList=$listed"
}

# Ends this script: SLURM starts the job again, on another node if it can; else with status $1.
move_away() {
    local said
    if ((${SLURM_RESTART_COUNT:-0} >= most_restarts)); then
        say "given up after $most_restarts restarts"
        exit "$1"
    fi
    [[ $array == "$me" ]] || exclude "$array" 2>/dev/null # running tasks cannot be changed
    until said=$(scontrol requeue "$me" 2>&1); do
        say "SLURM did not requeue $me: $said"
        [[ ${said,,} =~ disabled|invalid|finished|complet|permission ]] && exit "$1"
        nap 10
        [[ -z $leaving ]] || exit "$1"
    done
    for _ in 1 2 3 4 5; do # SIGKILL follows within half a minute
        exclude "$me" 2>/dev/null && break
        sleep 1
    done
    sleep 60
    exit "$1"
}
