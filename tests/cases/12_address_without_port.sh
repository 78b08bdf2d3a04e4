#!/bin/bash
# An address that cannot be one must be refused at once as a usage error, not tried for ten seconds.
. "$(dirname "$0")/common.sh"

bad=0
for a in 127.0.0.1 localhost; do s=$(date +%s%N); timeout 15 $BIN/embarctl topic list --brokers "$a" 2> $T/err; rc=$?; ms=$((($(date +%s%N)-s)/1000000))
echo "[$a] exit $rc after $ms ms: $(head -c 150 $T/err)"; [ $rc -eq 2 ] && [ $ms -lt 1500 ] || bad=1; done
exit $bad
