#!/usr/bin/env bash
# Finds cache lines that several cores of one host write or read in turn (false sharing) in a running embarlet.
#
#   perf/c2c.sh [PID]
#
# Needs a processor whose loads and stores can be sampled (Intel PEBS, AMD IBS, Arm SPE): not in most virtual machines.
# Settings, by environment: SECONDS_TO_RECORD [10], OUT file [run/c2c.data].
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
# shellcheck source=threads.sh
source "$ROOT/perf/threads.sh"

need_perf
pid=$(broker_process "$@")
out=${OUT:-$ROOT/run/c2c.data}
mkdir -p "$(dirname "$out")"
show_threads "$(broker_threads "$pid")"
if ! perf c2c record -o "$out" -- -p "$pid" -- sleep "${SECONDS_TO_RECORD:-10}" >"$out.log" 2>&1; then
    tail -n 5 "$out.log" >&2
    refuse "this machine cannot sample memory accesses (a virtual machine without PEBS, IBS or SPE?); run it on bare metal"
fi
perf c2c report -i "$out" --stdio --stats
perf c2c report -i "$out" --stdio 2>/dev/null | sed -n '/Shared Data Cache Line Table/,$p' | head -n 60
