#!/bin/bash
# The first Ctrl-C must end a client that waits for a broker's answer.
. "$(dirname "$0")/common.sh"

timeout 40 python3 - $BIN $PORT <<'PY'
import socket,subprocess,sys,time
l=socket.socket(); l.setsockopt(1,2,1); l.bind(('127.0.0.1',int(sys.argv[2]))); l.listen(9)   # accepts, never answers
bad=0
for a in (['consume','--topic','t'],['topic','list']):
    p=subprocess.Popen([sys.argv[1]+'/embarctl',*a,'--brokers','127.0.0.1:'+sys.argv[2],'--timeout','8'],stderr=subprocess.DEVNULL)
    time.sleep(0.5); t=time.time(); p.send_signal(2); rc=p.wait(20); d=time.time()-t
    print(a[0],'exit %d, %.1f s after SIGINT'%(rc,d)); bad|=d>1 or rc!=130
sys.exit(bad)
PY
