# Sourced: the operators' page (config/OPERATING.md), typed command by command on bare machines. What was typed and what came of it is
# in $WORK/transcript.txt. tests/tidy.rs holds it against the page: each command of either is in the other.
# shellcheck shell=bash

# typed GUEST WORDS 'command of the page': it succeeds, and prints these words.
typed() { as_written "$1" "$2" "$3" "$3"; }
# started GUEST 'command of the page': the same for one that runs until it is stopped.
started() { as_written "$1" "ready:" "$2" "$(until_ready "$2"; echo "grep ready: broker.log")"; }
# not_here WHY 'command of the page'
not_here() { echo "# not typed here, $1: $2" >>"$WORK/transcript.txt"; }
# edited GUEST 'commands': what the page leaves to whoever reads it.
edited() { as_written "$1" "" "# (an editor)" "$2"; }

# fitted GUEST: for two cores, and with a short index and short rings: as it is, an emulated device takes 134 and 250 s to be formatted (0.6 and 1.1 GB
# of zeros).
fitted() {
    edited "$1" "sed -i 's/mode: dedicated/mode: auto/; s/idle: spin/idle: park/' /etc/embarcadero.yaml
sed -i 's/segments: 64/segments: 4/; s/segment_entries: 65536/segment_entries: 16384/; s/ring_slots: 16384/ring_slots: 1024/' /etc/embarcadero.yaml"
}

as_written() { # GUEST WORDS COMMAND WHAT-IS-RUN
    local said code
    said=$(in_guest "$1" 300 "cd /; $4")
    code=$?
    printf 'host-%s# %s\n%s\n' "$(number "$1")" "$3" "$said" >>"$WORK/transcript.txt"
    if [ $code = 0 ] && grep -q -- "$2" <<<"$said"; then
        ok "host-$(number "$1")# $3"
    else
        bad "host-$(number "$1")# $3: exit code $code, expected '$2', found: $(tail -c 500 <<<"$said")"
    fi
}

# told GUEST WORDS 'command of the page': it is refused, and says these words.
told() {
    local said
    said=$(in_guest "$1" 120 "cd /; $3") && bad "host-$(number "$1")# $3: it was not refused"
    printf 'host-%s# %s\n%s\n' "$(number "$1")" "$3" "$said" >>"$WORK/transcript.txt"
    if grep -q -- "$2" <<<"$said"; then ok "host-$(number "$1")# $3: $(grep -- "$2" <<<"$said" | head -1)"; else bad "host-$(number "$1")# $3: $said"; fi
}

bare_machines() {
    new_device
    date -u +'# %Y-%m-%d, QEMU guests, typed by tests/cxl/page.sh' >"$WORK/transcript.txt"
    check "a bare machine" power_on A none
    in_guest A 10 'echo "10.9.0.1 host-0 embarcadero
10.9.0.2 host-1" >/etc/hosts'
}

the_machine_and_the_device() {
    told A "unknown key" 'sysctl kernel.io_uring_disabled'
    typed A mem0 'cxl list -M'
    typed A decoder0.0 'cxl list -D -d root'
    not_here "the emulated device is persistent" 'cxl create-region -m -d decoder0.0 -t ram mem0'
    typed A "created 1 region" 'cxl create-region -m -d decoder0.0 -t pmem mem0'
    typed A dax0.0 'ndctl create-namespace -m devdax -M mem -a 2M'
    typed A '"mode":"devdax"' 'daxctl list'
    not_here "it is in that mode" 'daxctl reconfigure-device --mode=devdax dax0.0'
    typed A 2097152 'cat /sys/bus/dax/devices/dax0.0/size /sys/bus/dax/devices/dax0.0/align /sys/bus/dax/devices/dax0.0/numa_node'
    not_here "the guests have no udev" 'udevadm control --reload && udevadm trigger --subsystem-match=dax'
    typed A /dev/dax0.0 'ls -l /dev/dax0.0'
    typed A "" 'echo 3 > /proc/irq/default_smp_affinity'
    not_here "the guests have no systemd" 'systemctl disable --now irqbalance'
}

one_host() {
    typed A "" 'cp config/cxl-64-core.yaml /etc/embarcadero.yaml'
    told A "needs 26 cores" 'embarlet --config /etc/embarcadero.yaml --check-config'
    fitted A
    typed A "mode: auto" 'embarlet --config /etc/embarcadero.yaml --check-config'
    not_here "what it says depends on the machine, and so does its exit code" 'embarctl doctor --config /etc/embarcadero.yaml'
    typed A "formatted /dev/dax0.0" 'embarlet --config /etc/embarcadero.yaml --format-only'
    started A 'embarlet --config /etc/embarcadero.yaml'
    typed A "" 'embarctl topic create first --order 5 --brokers 127.0.0.1:7300'
    typed A "" 'echo hello | embarctl produce --topic first --brokers 127.0.0.1:7300'
    typed A hello 'embarctl consume --topic first --from earliest --count 1 --brokers 127.0.0.1:7300'
    typed A ^PASS 'loadgen e2e --brokers 127.0.0.1:7300 --topic check --order 5 --duration 10s'
}

# as_a_service: nothing of it is typed here.
as_a_service() {
    local why="the guests have no systemd and no compiler"
    not_here "$why" 'make build'
    not_here "$why" 'make install'
    not_here "$why" 'systemd-sysusers'
    not_here "$why" 'systemctl daemon-reload'
    not_here "$why" 'systemctl enable --now embarcadero'
    not_here "$why" 'systemctl status embarcadero'
    not_here "$why" 'systemctl enable --now embarcadero@0 embarcadero@1 embarcadero@2 embarcadero@3'
    not_here "$why" 'systemctl restart embarcadero@0 && systemctl restart embarcadero@1 && systemctl restart embarcadero@2 && systemctl restart embarcadero@3'
}

two_hosts() {
    stop A /
    in_guest A 10 'rm /broker.log'
    cp "$WORK/A.lsa" "$WORK/B.lsa"
    check "another bare machine" power_on B none
    in_guest B 10 'echo "10.9.0.1 host-0
10.9.0.2 host-1" >/etc/hosts'
    typed B "created 1 region" 'cxl create-region -m -d decoder0.0 -t pmem mem0'
    for guest in A B; do
        typed $guest "" 'cp config/cxl-two-hosts.yaml /etc/embarcadero.yaml'
        fitted $guest
    done
    edited B "sed -i 's/host: 0, /host: 1, /; s/host-0/host-1/' /etc/embarcadero.yaml"
    typed A "formatted /dev/dax0.0" 'embarlet --config /etc/embarcadero.yaml --format-only'
    for guest in A B; do started $guest 'embarlet --config /etc/embarcadero.yaml'; done
    not_here "it wants a terminal" 'embarctl top --pool /dev/dax0.0'
    typed A "broker 4: running on host 1" 'embarctl status --pool /dev/dax0.0'
    typed A "" 'embarctl topic create first --order 5 --brokers 127.0.0.1:7300'
    typed A "" 'echo hello | embarctl produce --topic first --brokers 127.0.0.1:7300'
    typed A hello 'embarctl consume --topic first --from earliest --count 1 --brokers host-1:7300'
    typed B hello 'embarctl consume --topic first --from earliest --count 1 --attach /dev/dax0.0 --host 1'
    typed A "first" 'embarctl topic describe first --brokers 127.0.0.1:7300'
}

a_host_dies() {
    told A "is not off" 'embarctl host forget 1 --pool /dev/dax0.0 --powered-off'
    power_off B
    sleep 4
    typed A "host 1" 'embarctl host forget 1 --pool /dev/dax0.0 --powered-off'
    typed A "broker 4: gone" 'embarctl status --pool /dev/dax0.0'
}
