#!/bin/bash
# Too low a limit of locked memory must be named in the message.
. "$(dirname "$0")/common.sh"

[ $(id -u) = 0 ] || { echo "needs root to become somebody without CAP_IPC_LOCK"; exit 77; }
config; chmod 755 $T; chmod 644 $T/c.yaml
timeout 5 prlimit --memlock=65536:65536 setpriv --reuid 65534 --regid 65534 --clear-groups $BIN/embarlet --config $T/c.yaml > $T/log 2>&1; rc=$?
grep -q 'active, epoch' $T/log && { echo "runs"; exit 0; }
grep -o 'io_uring cannot.*' $T/log; grep -qiE 'memlock|ulimit -l|locked memory' $T/log
