#!/bin/bash
# A machine that brokers run on is found to be set up for them; one where io_uring is denied is not, and the check that fails is named; a file
# that is no configuration is a matter of usage.
. "$(dirname "$0")/common.sh"

config
"$BIN/embarctl" doctor --config "$T/c.yaml" --json >"$T/good" 2>&1
good=$?
timeout 10 python3 - "$BIN/embarctl" doctor --config "$T/c.yaml" >"$T/denied" 2>&1 <<'PY'
import ctypes,os,sys,struct
ins=[(0x20,0,0,0),(0x15,2,0,425),(0x15,1,0,426),(0x15,0,1,427),(6,0,0,0x50001),(6,0,0,0x7fff0000)]
b=ctypes.create_string_buffer(b''.join(struct.pack('HBBI',*i) for i in ins))
class P(ctypes.Structure): _fields_=[('n',ctypes.c_ushort),('f',ctypes.c_void_p)]
l=ctypes.CDLL(None,use_errno=True); p=P(len(ins),ctypes.addressof(b))
if l.prctl(38,1,0,0,0) or l.prctl(22,2,ctypes.byref(p),0,0): sys.exit(77)
os.execv(sys.argv[1],sys.argv[1:])
PY
denied=$?
[ $denied -eq 77 ] && exit 77
echo 'pol: { path: /dev/shm/x }' >"$T/wrong.yaml"
"$BIN/embarctl" doctor --config "$T/wrong.yaml" >"$T/wrong" 2>&1
wrong=$?
echo "exit status $good as it is, $denied without io_uring, $wrong without a configuration; pool left: $(stat -c '%s bytes' "$POOL" 2>/dev/null)"
cat "$T/wrong"
grep -A1 '^FAIL' "$T/denied"
python3 -c 'import json, sys; found = json.load(sys.stdin); sys.exit(found["schema"] != 1 or len(found["checks"]) < 25)' <"$T/good" || exit 1
[ $good -eq 0 ] && [ $denied -eq 1 ] && [ $wrong -eq 2 ] && grep -q '^FAIL  io_uring  ' "$T/denied" && [ ! -e "$POOL" ]
