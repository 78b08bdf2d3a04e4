#!/bin/bash
# A start that fails, as the port is taken, must not leave a new pool of its full size behind.
. "$(dirname "$0")/common.sh"

config
python3 -c "import socket,time; s=socket.socket(); s.setsockopt(1,2,1); s.bind(('127.0.0.1',$PORT)); s.listen(1); open('$T/up','w'); time.sleep(12)" & PIDS=$!; until [ -e $T/up ]; do sleep 0.1; done
timeout 10 $BIN/embarlet --config $T/c.yaml > $T/log 2>&1; rc=$?
echo "exit $rc: $(tail -1 $T/log | cut -c1-110); pool left: $(stat -c '%s bytes' $POOL 2>/dev/null)"
[ $rc -eq 2 ] && [ ! -e $POOL ]
