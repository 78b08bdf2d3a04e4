#!/usr/bin/env bash
# Runs the whole suite RUNS times without building it again, every other time beside a busy core, and tells which tests failed:
# a test that fails once in twenty runs is wrong, or shows something that is. Logs are kept in run/repeat.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
readonly RUNS=${RUNS:-20} LOGS=run/repeat
mkdir -p "$LOGS"
cargo test --workspace --no-run --quiet
failures=0
busy=""
trap '[[ -z $busy ]] || kill "$busy"' EXIT
for run in $(seq "$RUNS"); do
    busy=""
    if ((run % 2 == 0)); then
        (while :; do :; done) &
        busy=$!
    fi
    begin=$SECONDS
    if cargo test --workspace --no-fail-fast >"$LOGS/$run.log" 2>&1; then verdict=passed; else verdict=FAILED; fi
    echo "run $run: $verdict after $((SECONDS - begin)) s${busy:+, beside a busy core}"
    [[ -z $busy ]] || { kill "$busy"; wait "$busy" 2>/dev/null || true; busy=""; }
    if [[ $verdict == FAILED ]]; then
        failures=$((failures + 1))
        grep -E '^test .* FAILED$|^error: test failed' "$LOGS/$run.log" | sed 's/^/    /' || true
    fi
done
echo "$failures of $RUNS runs failed; logs in $LOGS"
((failures == 0))
