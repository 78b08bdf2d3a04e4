#!/bin/bash
# Ctrl-C in the middle of the main job: it says nothing of brokers that "ended with code", the verdict of an earlier run is not left to be
# taken for this one's, and its pool is not left behind.
. "$(dirname "$0")/common.sh"

command -v python3 >/dev/null || skip "no python3"
root=$T/root
mkdir -p "$root/tools" "$root/config" "$root/target" "$root/run"
cp "$(dirname "$0")"/../../tools/{run_main_job,brokers}.sh "$root/tools/"
ln -s "$(realpath "$BIN")" "$root/target/release"
cat >"$root/config/two-core.yaml" <<Y
pool:
  path: somewhere
  bytes: 64MiB
geometry: { extent_bytes: 1MiB }
brokers:
  - { address: "127.0.0.1:$PORT" }
threads: { mode: shared, idle: park }
Y
echo '{"verdict": "PASS"}' >"$root/run/main_job.json"
# As a terminal does: a signal to every process of the group. (What a shell starts in the background ignores it.)
CARGO_TARGET_DIR=$root/target timeout 60 python3 - "$root/tools/run_main_job.sh" --brokers "127.0.0.1:$PORT" --total-bytes 100GiB >"$T/out" 2>&1 <<'P'
import os, signal, subprocess, sys, time
job = subprocess.Popen(["bash", *sys.argv[1:]], start_new_session=True,
                       preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
run, since = os.path.join(os.path.dirname(sys.argv[1]), "../run"), time.time()
while time.time() < since + 20:
    try:
        if "ready: brokers" in open(run + "/main_job.log").read():
            break
    except OSError:
        pass
    time.sleep(0.1)
time.sleep(1.5)
os.killpg(job.pid, signal.SIGINT)
try:
    code = job.wait(30)
except subprocess.TimeoutExpired:
    os.killpg(job.pid, signal.SIGKILL)
    sys.exit("it did not end in 30 s")
pool = "/dev/shm/embarcadero-main-job-%d" % job.pid
sys.exit(pool + " is left" if os.path.exists(pool) else code)
P
rc=$?
cat "$T/out"
echo "exit $rc; verdict left: $(cat "$root/run/main_job.json" 2>/dev/null)"
[ $rc -eq 130 ] && ! grep -q "ended with code" "$T/out" && ! grep -qs PASS "$root/run/main_job.json" && grep -q "ready: brokers" "$root/run/main_job.log"
