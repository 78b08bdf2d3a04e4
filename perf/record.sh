#!/usr/bin/env bash
# Samples the role threads of a running embarlet and shows where they spend their time.
#
#   perf/record.sh [PID]
#
# Settings, by environment: SECONDS_TO_RECORD [10], FREQUENCY samples a second [999], OUT file [run/record.data],
# CALLS=1 records call chains by frame pointer as well [0].
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
# shellcheck source=threads.sh
source "$ROOT/perf/threads.sh"

need_perf
pid=$(broker_process "$@")
threads=$(broker_threads "$pid")
out=${OUT:-$ROOT/run/record.data}
mkdir -p "$(dirname "$out")"
show_threads "$threads"

# Virtual machines often have no hardware counters: the timer does for samples.
event=cycles
if ! perf stat -e cycles true 2>&1 | grep -qE '[0-9] +cycles'; then
    echo "record.sh: no hardware cycle counter here; sampling by timer (cpu-clock)"
    event=cpu-clock
fi
calls=()
[[ ${CALLS:-0} == 1 ]] && calls=(--call-graph fp)
perf record -q -e "$event" -F "${FREQUENCY:-999}" "${calls[@]}" -t "$threads" -o "$out" -- sleep "${SECONDS_TO_RECORD:-10}"
perf report -i "$out" --stdio --no-children -g none --sort comm,symbol --percent-limit 0.8 2>/dev/null | grep -vE '^#|^$'
echo "more: perf report -i $out; perf annotate -i $out"
