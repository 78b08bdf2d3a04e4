#!/bin/bash
# One SIGINT or SIGTERM must end consume while its reader does not read.
. "$(dirname "$0")/common.sh"

config; start; seq 1 300000 | ctl produce --topic t --create 2>/dev/null
timeout 30 python3 - $BIN $PORT <<'PY'
import subprocess,sys,os,time,signal
bad=0
for s in (signal.SIGINT,signal.SIGTERM):
    r,w=os.pipe()
    p=subprocess.Popen([sys.argv[1]+'/embarctl','consume','--brokers','127.0.0.1:'+sys.argv[2],'--topic','t'],stdout=w); os.close(w)
    time.sleep(1.5); t=time.time(); p.send_signal(s)
    try: print(s.name,'exit',p.wait(5),'after %.2f s'%(time.time()-t))
    except subprocess.TimeoutExpired: print(s.name,'still there after 5 s, in',open(f'/proc/{p.pid}/wchan').read()); bad=1; p.kill(); p.wait()
    os.close(r)
sys.exit(bad)
PY
