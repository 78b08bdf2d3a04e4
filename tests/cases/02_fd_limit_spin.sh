#!/bin/bash
# At its limit of open files a broker must neither spin nor flood its log, and must recover.
. "$(dirname "$0")/common.sh"

config
( ulimit -n 40; exec $BIN/embarlet --config $T/c.yaml > $T/log 2>&1 ) & P=$!; PIDS="$P"
for i in $(seq 80); do grep -q 'active, epoch' $T/log && break; sleep 0.1; done
python3 - $PORT <<'PY' &
import socket,sys,time
c=[]
for i in range(60):
    s=socket.socket(); s.connect(('127.0.0.1',int(sys.argv[1]))); c.append(s)
time.sleep(3)
PY
K=$!; wait $K
sleep 1; echo again | ctl produce --topic t --create 2>/dev/null; rc=$?
n=$(grep -c 'Too many open files' $T/log)
echo "lines about it in the log: $n, $(stat -c %s $T/log) bytes; produce afterwards: $rc"
[ $rc -eq 0 ] && [ $n -le 100 ]
