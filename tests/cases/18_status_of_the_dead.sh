#!/bin/bash
# A status of brokers that are all gone must not end as if all were well.
. "$(dirname "$0")/common.sh"

config; start
timeout 20 $BIN/embarctl status --pool $POOL > $T/out 2> $T/err; rc=$?; echo "while it runs: exit $rc, $(grep -c running $T/out) of 2 lines say running"
[ $rc -eq 0 ] && grep -q '^sequencer: .* running' $T/out && grep -q '^broker 0: running' $T/out || exit 1
kill -9 $P; wait $P 2>/dev/null
timeout 20 $BIN/embarctl status --pool $POOL > $T/out 2> $T/err; rc=$?; echo "after its death: exit $rc, words: '$(cat $T/err)'"
[ $rc -ne 0 ] && [ -s $T/err ] && grep -q '^sequencer: .* gone' $T/out && grep -q '^broker 0: gone' $T/out
