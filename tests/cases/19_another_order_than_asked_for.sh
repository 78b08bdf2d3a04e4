#!/bin/bash
# A topic that has another order than the one asked for must not be published to as if it had.
. "$(dirname "$0")/common.sh"

config; start; echo first | ctl produce --topic t --order 2 --create 2>/dev/null || exit 1
echo second | ctl produce --topic t --order 5 > $T/out 2> $T/err; rc=$?; echo "exit $rc, words: '$(cat $T/err)'"
[ $rc -ne 0 ] && grep -q 5 $T/err && grep -q 2 $T/err || exit 1
echo third | ctl produce --topic t --order 2 2>/dev/null && [ "$(ctl consume --topic t --from earliest 2>/dev/null | xargs)" = "first third" ]
