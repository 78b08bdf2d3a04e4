#!/usr/bin/env bash
# The threads of a running embarlet: name, core, processor time, and how often each gave its core up or lost it, over a second.
#
#   perf/threads.sh [PID]
#
# A thread that spins has no voluntary switches; one that has involuntary ones shares its core. Sourced by record.sh and c2c.sh: it then
# only finds the broker process and its threads, and says clearly what is missing.

refuse() {
    echo "$(basename "$0"): $*" >&2
    exit 2
}

need_perf() {
    command -v perf >/dev/null || refuse "there is no \`perf\` on this machine; install it (Debian: linux-perf, Ubuntu: linux-tools-generic, Fedora: perf)"
    local paranoid
    paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2>/dev/null) || refuse "this kernel has no performance events (CONFIG_PERF_EVENTS)"
    if ((EUID != 0 && paranoid > 2)); then
        refuse "kernel.perf_event_paranoid is $paranoid: only root may sample; as root: sysctl kernel.perf_event_paranoid=1"
    fi
    if ((EUID != 0 && paranoid > 1)); then
        echo "$(basename "$0"): kernel.perf_event_paranoid is $paranoid: samples in the kernel are left out; as root: sysctl kernel.perf_event_paranoid=1" >&2
    elif ! awk '$1 !~ /^0+$/ { seen = 1; exit } END { exit !seen }' /proc/kallsyms 2>/dev/null; then
        # Without the right to see them all addresses are 0.
        echo "$(basename "$0"): kernel functions will have no names: kernel.kptr_restrict is $(cat /proc/sys/kernel/kptr_restrict); as root: sysctl kernel.kptr_restrict=0" >&2
    fi
}

# broker_process [PID]: that one, or the only embarlet that is running (one that is stopped does not count).
broker_process() {
    if (($# > 0)); then
        [[ $1 =~ ^[0-9]+$ && -r /proc/$1/stat ]] || refuse "there is no process $1"
        echo "$1"
        return
    fi
    local found=() pid
    for pid in $(pgrep -x embarlet || true); do
        [[ $(sed 's/.*) //; s/ .*//' "/proc/$pid/stat" 2>/dev/null) == T ]] || found+=("$pid")
    done
    ((${#found[@]} > 0)) || refuse "no embarlet is running; start one, and a load on it"
    ((${#found[@]} == 1)) || refuse "several embarlets are running (${found[*]}): say which, by its process id"
    echo "${found[0]}"
}

# thread_name THREAD, as the kernel keeps it: its first 15 letters.
thread_name() {
    cat "/proc/$1/comm" 2>/dev/null
}

# broker_threads PID [ROLE]: the ids of the threads that run roles, or this role (`all`: any), or of those of this name; with commas.
broker_threads() {
    local found=() names=() task name role=${2:-all}
    for task in /proc/"$1"/task/*; do
        name=$(thread_name "${task##*/}") || continue
        names+=("$name")
        ! runs "$name" "$role" || found+=("${task##*/}")
    done
    ((${#found[@]} > 0)) || refuse "process $1 has no thread that runs \`$role\`, and none of that name; its threads: $(printf '%s, ' "${names[@]}" | sed 's/, $//')"
    local IFS=,
    echo "${found[*]}"
}

# runs NAME ROLE: whether a thread of this name runs that role. A role that has a core has a thread of its name; else it shares one with others.
runs() {
    case $2 in
    all) [[ $1 == shared || $1 == brokers-* || $1 =~ ^(receive|sequence|ack|export)($|\ ) ]] ;;
    sequence) [[ $1 == shared || $1 =~ ^sequence($|\ ) ]] ;;
    receive | ack | export) [[ $1 == shared || $1 == brokers-* || $1 =~ ^$2($|\ ) ]] ;;
    *) [[ $1 == "$2" ]] ;;
    esac
}

# show_threads LIST: what is about to be looked at, and the cores each may run on.
show_threads() {
    local thread
    for thread in ${1//,/ }; do
        echo "thread $thread: $(thread_name "$thread"), cores $(awk '/^Cpus_allowed_list/ { print $2 }' "/proc/$thread/status")"
    done
}

# account PID: a line for each of its threads: id, core it ran on last, ticks of processor time, switches it made and suffered, name.
account() {
    local task stat
    for task in /proc/"$1"/task/*; do
        # What is behind the name, which may have blanks: the state is field 3 of the manual's list.
        stat=$(sed 's/.*) //' "$task/stat" 2>/dev/null) || continue
        # shellcheck disable=SC2086 # it is a list of words
        set -- $stat
        echo "${task##*/} ${37} $((${12} + ${13})) $(awk '/^voluntary_ctxt/ { own = $2 } /^nonvoluntary_ctxt/ { suffered = $2 } END { print own, suffered }' "$task/status" 2>/dev/null) $(thread_name "${task##*/}")"
    done
}

# print_threads PID: what each thread did in a second.
print_threads() {
    local before
    before=$(account "$1")
    sleep 1
    printf '%8s  %-15s  %4s  %8s  %10s  %14s  %16s\n' thread name core 'cpu %' 'cpu s' 'voluntary/s' 'involuntary/s'
    awk -v hertz="$(getconf CLK_TCK)" '
        NR == FNR { ticks[$1] = $3; own[$1] = $4; suffered[$1] = $5; next }
        $1 in ticks {
            name = $6
            for (part = 7; part <= NF; part++) name = name " " $part
            printf "%8d  %-15s  %4d  %8.1f  %10.2f  %14d  %16d\n", $1, name, $2, ($3 - ticks[$1]) * 100 / hertz, $3 / hertz, $4 - own[$1], $5 - suffered[$1]
        }' <(echo "$before") <(account "$1")
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    set -euo pipefail
    pid=$(broker_process "$@")
    print_threads "$pid"
fi
