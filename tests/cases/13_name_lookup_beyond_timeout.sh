#!/bin/bash
# --timeout must bound the look-up of a broker's name too.
. "$(dirname "$0")/common.sh"

[ $(id -u) = 0 ] || exit 77
cat > $T/in.sh <<'IN'
ip link set lo up; echo 'nameserver 127.0.0.1' > $T/resolv; mount --bind $T/resolv /etc/resolv.conf || exit 77
python3 -c "import socket,time; s=socket.socket(2,2); s.bind(('127.0.0.1',53)); open('$T/up','w'); time.sleep(20)" & D=$!; until [ -e $T/up ]; do sleep 0.1; done
s=$(date +%s%N); timeout 18 $BIN/embarctl topic list --brokers broker.example.test:7300 --timeout 2 2> $T/err; echo "$?" $((($(date +%s%N)-s)/1000000)) > $T/res; kill $D
IN
export BIN T; timeout 30 unshare -mn bash $T/in.sh; read rc ms < $T/res; echo "--timeout 2: exit $rc after $ms ms: $(head -c 130 $T/err)"
[ $ms -lt 3500 ]
