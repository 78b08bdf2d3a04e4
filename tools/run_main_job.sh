#!/usr/bin/env bash
# The main job, end to end: four brokers in one process (config/two-core.yaml) on a pool of its own, two publisher sessions
# striped over them, one subscriber that verifies every byte. Leaves nothing behind but run/main_job.{log,json,html}.
#
# Arguments go to `loadgen e2e` behind the defaults, e.g.: tools/run_main_job.sh --total-bytes 4GiB --json out.json
# Exit code: 0 pass, 1 short, out of order, duplicated or corrupt, 2 could not run, 130 interrupted.
set -euo pipefail

# shellcheck source=brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"
readonly LOG=$RUN/main_job.log
readonly JSON=$RUN/main_job.json
readonly REPORT=$RUN/main_job.html

[[ -x $BINARIES/embarlet && -x $BINARIES/loadgen ]] || refuse "no binaries in $BINARIES; run make build"
mkdir -p "$RUN"
# What an earlier run found says nothing about this one.
rm -f -- "$JSON" "$REPORT"
# The shipped configuration, on a pool that is nobody else's.
sed "s|^  path: .*|  path: $POOL|" "$ROOT/config/two-core.yaml" >"$CONFIG"
start_broker "$LOG"
await_brokers
status=0
loadgen e2e --sessions 2 --subscribers 1 --order 5 --ack 1 --message-size 1KiB --inside "$POOL" --json "$JSON" --report "$REPORT" "$@" || status=$?
stop_brokers
echo "  broker log: $LOG"
echo "  report: $REPORT"
ended "$status"
