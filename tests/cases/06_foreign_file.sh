#!/bin/bash
# create: if_missing must not touch a file that is something else, whatever its first page holds.
. "$(dirname "$0")/common.sh"

config; (head -c 32768 /dev/zero; yes DATA | head -c 8000000) > $POOL; before=$(md5sum < $POOL)
timeout 2 $BIN/embarlet --config $T/c.yaml > $T/log 2>&1; head -1 $T/log | cut -c1-160
after=$(head -c 8032768 $POOL | md5sum); lines=$(grep -ac DATA $POOL)
echo "lines of the file that are left: $lines of 1600000"
[ "$before" = "$after" ]
