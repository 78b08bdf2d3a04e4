#!/bin/bash
# A start far beyond the end of the log must not look like an empty topic.
. "$(dirname "$0")/common.sh"

config; sed -i 's|extent_bytes: 1MiB|&, attached_per_broker: 1|' $T/c.yaml; start; seq 10 | ctl produce --topic t --create 2>/dev/null
ctl consume --topic t --from 1000000 > $T/out 2> $T/err; rc=$?; echo "exit $rc, $(wc -l < $T/out) messages, words: '$(cat $T/err)'"
[ $rc -ne 0 ] || [ -s $T/err ] || exit 1
timeout 20 $BIN/embarctl consume --attach $POOL --topic t --from 1000000 --timeout 3 > $T/out 2> $T/err; rc=$?; echo "attached: exit $rc, words: '$(cat $T/err)'"
[ $rc -ne 0 ] && grep -q 1000000 $T/err && grep -q 10 $T/err
