# Sourced by record.sh and c2c.sh: finds the broker process and its threads, and says clearly what is missing.

refuse() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

need_perf() {
    command -v perf >/dev/null || refuse "there is no \`perf\` on this machine; install it (Debian: linux-perf, Ubuntu: linux-tools-generic, Fedora: perf)"
}

# broker_process [PID]: that one, or the only embarlet that is running (one that is stopped does not count).
broker_process() {
    if (($# > 0)); then
        [[ -r /proc/$1/stat ]] || refuse "there is no process $1"
        echo "$1"
        return
    fi
    local found=() pid
    for pid in $(pgrep -x embarlet || true); do
        [[ $(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) == T ]] || found+=("$pid")
    done
    ((${#found[@]} > 0)) || refuse "no embarlet is running; start one, and a load on it"
    ((${#found[@]} == 1)) || refuse "several embarlets are running (${found[*]}): say which, as the first argument"
    echo "${found[0]}"
}

# broker_threads PID: the ids of the threads that run roles, with commas. The main thread only waits for them.
broker_threads() {
    local threads=() task
    for task in /proc/"$1"/task/*; do
        [[ ${task##*/} == "$1" ]] || threads+=("${task##*/}")
    done
    ((${#threads[@]} > 0)) || refuse "process $1 has no threads but its first: is it an embarlet?"
    local IFS=,
    echo "${threads[*]}"
}

# show_threads LIST: what is about to be looked at, and the cores each may run on.
show_threads() {
    local thread
    for thread in ${1//,/ }; do
        echo "thread $thread: $(cat "/proc/$thread/comm"), cores $(awk '/^Cpus_allowed_list/ { print $2 }' "/proc/$thread/status")"
    done
}
