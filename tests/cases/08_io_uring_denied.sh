#!/bin/bash
# Where io_uring is denied a broker must not say ready, and must exit with 2 (could not start).
. "$(dirname "$0")/common.sh"

config
timeout 10 python3 - $BIN/embarlet --config $T/c.yaml > $T/log 2>&1 <<'PY'
import ctypes,os,sys,struct
ins=[(0x20,0,0,0),(0x15,2,0,425),(0x15,1,0,426),(0x15,0,1,427),(6,0,0,0x50001),(6,0,0,0x7fff0000)]
b=ctypes.create_string_buffer(b''.join(struct.pack('HBBI',*i) for i in ins))
class P(ctypes.Structure): _fields_=[('n',ctypes.c_ushort),('f',ctypes.c_void_p)]
l=ctypes.CDLL(None,use_errno=True); p=P(len(ins),ctypes.addressof(b))
if l.prctl(38,1,0,0,0) or l.prctl(22,2,ctypes.byref(p),0,0): sys.exit(77)
os.execv(sys.argv[1],sys.argv[1:])
PY
rc=$?; [ $rc -eq 77 ] && exit 77
ready=$(grep -c 'ready: brokers' $T/log); echo "exit status $rc, 'ready' said $ready times, pool left: $(stat -c '%s bytes' $POOL 2>/dev/null)"; grep -o 'io_uring cannot.*' $T/log | cut -c1-110
[ $rc -eq 2 ] && [ $ready -eq 0 ]
