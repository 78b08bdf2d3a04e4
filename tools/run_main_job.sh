#!/usr/bin/env bash
# The main job, end to end: four brokers in one process (config/two-core.yaml) on a pool of its own, two publisher sessions
# striped over them, one subscriber that verifies every byte. Leaves nothing behind but run/main_job.{log,json}.
#
# Arguments go to `loadgen e2e` behind the defaults, e.g.: tools/run_main_job.sh --total-bytes 4GiB --json out.json
# Exit code: 0 pass, 1 short, out of order, duplicated or corrupt, 2 could not run, 130 interrupted.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release
readonly RUN=$ROOT/run
readonly LOG=$RUN/main_job.log
readonly CONFIG=$RUN/main_job.yaml
readonly POOL=/dev/shm/embarcadero-main-job-$$
readonly READY_DEADLINE_SEC=60
readonly STOP_DEADLINE_SEC=20

broker_pid=
load_pid=

fail() {
    echo "run_main_job: $*" >&2
    exit 2
}

start_broker() {
    # The shipped configuration, on a pool that is nobody else's.
    sed "s|^  path: .*|  path: $POOL|" "$ROOT/config/two-core.yaml" >"$CONFIG"
    # In a group of its own: a terminal's Ctrl-C comes to this script, which tells it once.
    setsid "$BINARIES/embarlet" --config "$CONFIG" >"$LOG" 2>&1 &
    broker_pid=$!
    local deadline=$((SECONDS + READY_DEADLINE_SEC))
    until grep -q 'ready: brokers' "$LOG"; do
        kill -0 "$broker_pid" 2>/dev/null || fail "embarlet ended before it was ready: $(tail -n 3 "$LOG")"
        ((SECONDS < deadline)) || fail "embarlet was not ready after $READY_DEADLINE_SEC s; see $LOG"
        sleep 0.05
    done
}

stop_broker() {
    [[ -n $broker_pid ]] || return 0
    local pid=$broker_pid deadline=$((SECONDS + STOP_DEADLINE_SEC)) status=0
    broker_pid=
    kill -TERM "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
        sleep 0.05
    done
    kill -KILL "$pid" 2>/dev/null && echo "run_main_job: embarlet did not stop within $STOP_DEADLINE_SEC s" >&2
    wait "$pid" 2>/dev/null || status=$?
    ((status == 0)) || echo "run_main_job: embarlet ended with code $status; see $LOG" >&2
    return "$status"
}

# shellcheck disable=SC2329 # invoked by the trap
clean_up() {
    trap '' INT TERM
    if [[ -n $load_pid ]]; then
        kill -TERM "$load_pid" 2>/dev/null || true
        wait "$load_pid" 2>/dev/null || true
    fi
    stop_broker || true
    rm -f -- "$POOL" "$CONFIG"
}

main() {
    [[ -x $BINARIES/embarlet && -x $BINARIES/loadgen ]] || fail "no binaries in $BINARIES; run make build"
    mkdir -p "$RUN"
    # What an earlier run found says nothing about this one.
    rm -f -- "$RUN/main_job.json"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    start_broker
    local status=0
    "$BINARIES/loadgen" e2e --sessions 2 --subscribers 1 --order 5 --ack 1 --message-size 1KiB \
        --json "$RUN/main_job.json" "$@" &
    load_pid=$!
    wait "$load_pid" || status=$?
    load_pid=
    stop_broker || { ((status != 0)) || status=1; }
    echo "  broker log: $LOG"
    exit "$status"
}

main "$@"
