#!/usr/bin/env bash
# Samples the role threads of a running embarlet, with call chains, and shows where each role spends its time: a table of its ten dearest
# functions, and a flame graph in run/flame-ROLE.svg.
#
#   perf/record.sh [ROLE] [PID]
#
# ROLE [all]: receive, sequence, ack, export, all, or a thread's name (`perf/threads.sh` lists them). Roles that share a thread are told apart
# by their call chains; what is in no role's is the `runner`: the loop, and what io_uring does when it is handed all roles' operations at
# once (sends, mostly). Without PID: the only embarlet that is running.
#
# Settings, by environment: SECONDS_TO_RECORD [10], FREQUENCY samples a second [999], OUT file [run/record.data], INLINE=1 names inlined
# functions as well, which takes minutes [0], CALLS, how call chains are found [auto]:
#   lbr     by the processor's record of branches; costs nothing; Intel, not in virtual machines
#   dwarf   by copies of the stack, 8 KiB a sample; right for any build
#   fp      by frame pointers: small files; only of a broker that was built with them:
#           RUSTFLAGS="-C force-frame-pointers=yes" cargo build --release -p embarcadero --target-dir target/frame-pointers
#   auto    lbr where it can be had, else dwarf
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release
# shellcheck source=threads.sh
source "$ROOT/perf/threads.sh"

# A number alone is a process.
role=all
if (($# > 0)) && ! [[ $1 =~ ^[0-9]+$ ]]; then
    role=$1
    shift
fi
(($# <= 1)) || refuse "too many arguments: perf/record.sh [ROLE] [PID]"
need_perf
pid=$(broker_process "$@")
threads=$(broker_threads "$pid" "$role")
readonly OUT=${OUT:-$ROOT/run/record.data}
readonly GRAPH=$ROOT/run/flame-${role//[ \/]/-}.svg
mkdir -p "$(dirname "$OUT")" "$ROOT/run"
(cd "$ROOT" && cargo build --release --quiet -p flame)
show_threads "$threads"

# samples EVENT CALLS: whether this machine can take any so.
samples() {
    perf record -q -e "$1" --call-graph "$2" -o /dev/null -- true >/dev/null 2>&1
}

# Virtual machines often have no hardware counters: the timer does for samples.
event=cycles
if ! perf stat -e cycles true 2>&1 | grep -qE '[0-9] +cycles'; then
    echo "record.sh: no hardware cycle counter here (a virtual machine?); sampling by timer (cpu-clock), which sees nothing where interrupts are off"
    event=cpu-clock
fi
calls=${CALLS:-auto}
if [[ $calls == auto ]]; then
    calls=dwarf
    ! samples "$event" lbr || calls=lbr
fi
[[ $calls == dwarf || $calls == fp || $calls == lbr ]] || refuse "CALLS is lbr, dwarf, fp or auto, found \`$calls\`"
samples "$event" "$calls" || refuse "this machine does not sample $event with call chains by $calls: $(perf record -e "$event" --call-graph "$calls" -o /dev/null -- true 2>&1 | head -n 3 | tr '\n' ' ')"

rm -f -- "$OUT"
echo "record.sh: $event, ${FREQUENCY:-999} a second, call chains by $calls, ${SECONDS_TO_RECORD:-10} s"
perf record -q -e "$event" -F "${FREQUENCY:-999}" --call-graph "$calls" -t "$threads" -o "$OUT" -- sleep "${SECONDS_TO_RECORD:-10}" 2>"$OUT.log" ||
    refuse "perf record failed: $(tail -n 5 "$OUT.log"); a broker of another user needs root"
inline=--no-inline
[[ ${INLINE:-0} == 1 ]] && inline=--inline
# Without the period of each sample: what is counted is samples.
perf script -i "$OUT" -F comm,pid,tid,time,event,ip,sym,dso "$inline" 2>"$OUT.log" | "$BINARIES/flame" --role "$role" --out "$GRAPH"
echo "flame graph: $GRAPH; more: perf report -i $OUT --no-inline; perf annotate -i $OUT"
