#!/bin/bash
# A start far beyond the end of the log must not look like an empty topic.
. "$(dirname "$0")/common.sh"

config; start; seq 10 | ctl produce --topic t --create 2>/dev/null
ctl consume --topic t --from 1000000 > $T/out 2> $T/err; rc=$?; echo "exit $rc, $(wc -l < $T/out) messages, words: '$(cat $T/err)'"
[ $rc -ne 0 ] || [ -s $T/err ]
