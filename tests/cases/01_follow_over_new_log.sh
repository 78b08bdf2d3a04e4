#!/bin/bash
# A follower whose broker comes back with a new, empty log must not go on at its old number in it.
. "$(dirname "$0")/common.sh"

config 'topics: [ { name: t } ]'
start; seq 1 100 | ctl produce --topic t 2>/dev/null
timeout 20 $BIN/embarctl consume --brokers 127.0.0.1:$PORT --topic t --follow > $T/out 2> $T/err & C=$!; PIDS="$PIDS $C"
sleep 1; stop $P; start --format
seq 1001 1060 | ctl produce --topic t 2>/dev/null; sleep 1
seq 2001 2050 | ctl produce --topic t 2>/dev/null; sleep 1.5
new=$(tail -n +101 $T/out | wc -l)
echo "new log holds 110 messages, the follower printed $new of them; it said: $(cat $T/err)"
[ $new -eq 110 ] && exit 0           # began the new log at its start
[ $new -eq 0 ] && [ -s $T/err ] && exit 0   # or ended, and said why
exit 1
