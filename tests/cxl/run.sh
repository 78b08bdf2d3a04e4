#!/usr/bin/env bash
# `make test-cxl`: the real binaries on two emulated hosts that share one CXL memory device (/dev/dax0.0 in both), with verdicts.
#
# What it shows: plumbing, hosts, reboots, power losses, pauses, refusals. What it cannot: caches that are not coherent (the simulator does), and speed.
# Exit code: 0 passed, 1 faults, 77 skipped for want of a package.
set -u
here=$(cd "$(dirname "$0")" && pwd)
WORK=${WORK:-$here/../../target/cxl-guests}
mkdir -p "$WORK"
WORK=$(cd "$WORK" && pwd)
# In memory, if there is room for what the guests touch of it: 2 GiB.
shm=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1)
BACK=$([ "${shm:-0}" -gt $((2 << 20)) ] && echo /dev/shm || echo "$WORK")/embarcadero-cxl-$$.raw
BYTES=256M
# Of the guests' shells, on the loopback: two.
PORT=$((20000 + $$ % 20000))
# shellcheck source=guests.sh
. "$here/guests.sh"
# shellcheck source=checks.sh
. "$here/checks.sh"
# shellcheck source=hosts.sh
. "$here/hosts.sh"
# shellcheck source=seen.sh
. "$here/seen.sh"
# shellcheck source=page.sh
. "$here/page.sh"

exec 9>"$WORK/lock"
flock -n 9 || { echo "another run has $WORK: wait for its end, or set WORK" && exit 1; }
bash "$here/setup.sh" "$WORK" || exit $?
SECONDS=0
switch_off() {
    power_off A
    power_off B
    rm -f "$BACK"
}
trap switch_off EXIT

# parts...: one after the other.
parts() {
    local part
    for part; do
        echo "-- ${part//_/ }"
        $part
    done
}

# Both, or one of the two: `run.sh hosts`, `run.sh page`.
if [ "${1:-hosts}" = hosts ]; then
    parts begin kinds_of_memory formatting two_machines one_order far_client what_hosts_show kill_and_reboot lose_the_sequencer stand_still_and_go_on
    parts replace_a_host no_errors format_under_a_host memory_fails
    switch_off
fi
if [ "${1:-page}" = page ]; then
    # As large as the configurations for bare metal want it; what nobody touches takes no memory.
    BYTES=8G
    parts bare_machines the_machine_and_the_device one_host as_a_service two_hosts a_host_dies large_pieces
    echo "transcript of the operators' page: $WORK/transcript.txt"
fi
echo "$faults faults, $SECONDS s, $(qemu-system-x86_64 --version | head -1)"
exit $((faults > 0))
