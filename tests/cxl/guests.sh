# Sourced: two QEMU guests, A and B, on one CXL Type-3 memory file. WORK is where setup.sh has put things, BACK the file of BYTES, PORT the first of two free ports.
#
# TCG, always: /dev/kvm may be there and not do. Two root ports: with one, QEMU 7.2 drops what is written to the device.
# shellcheck shell=bash

number() { [ "$1" = A ] && echo 0 || echo 1; }
address() { echo "10.9.0.$(($(number "$1") + 1))"; }
other() { [ "$1" = A ] && echo B || echo A; }

# Blank memory of BYTES, and no labels.
new_device() {
    rm -f "$WORK"/*.lsa "$BACK"
    truncate -s "$BYTES" "$BACK"
}

# power_on GUEST make|find|none: starts it; `make` and `find` make a region, `make` a namespace too.
power_on() {
    local name=$1 n
    n=$(number "$name")
    rm -f "$WORK/net$n.sock" "$WORK/$name.console"
    [ -e "$WORK/$name.lsa" ] || truncate -s 1M "$WORK/$name.lsa"
    # Datagrams between unix sockets: either guest may die and come back.
    local between="dgram,id=n0,local.type=unix,local.path=$WORK/net$n.sock,remote.type=unix,remote.path=$WORK/net$((1 - n)).sock"
    nice -n 5 qemu-system-x86_64 -nodefaults -no-user-config -nographic -no-reboot -name "$name" \
        -machine q35,cxl=on,cxl-fmw.0.targets.0=cxl.1,cxl-fmw.0.size=8G -accel tcg,thread=multi -cpu max,hypervisor=off \
        -smp 2 -m 512M,maxmem=16G,slots=4 \
        -object memory-backend-file,id=cm0,share=on,mem-path="$BACK",size="$BYTES" \
        -object memory-backend-file,id=lsa0,share=on,mem-path="$WORK/$name.lsa",size=1M \
        -device pxb-cxl,bus_nr=12,bus=pcie.0,id=cxl.1 \
        -device cxl-rp,port=0,bus=cxl.1,id=rp0,chassis=0,slot=2 -device cxl-rp,port=1,bus=cxl.1,id=rp1,chassis=0,slot=3 \
        -device cxl-type3,bus=rp0,memdev=cm0,lsa=lsa0,id=t3,sn=0x1 \
        -netdev "$between" -device virtio-net-pci,bus=pcie.0,netdev=n0,romfile=,mac=52:54:00:00:00:0$n \
        -netdev user,id=n1,restrict=on,hostfwd=tcp:127.0.0.1:$((PORT + n))-:2323 \
        -device virtio-net-pci,bus=pcie.0,netdev=n1,romfile=,mac=52:54:00:00:01:0$n \
        -serial "file:$WORK/$name.console" -monitor none -kernel "$WORK/vmlinuz" -initrd "$WORK/initrd.cpio" \
        -append "console=ttyS0 panic=-1 quiet name=$name ip=$(address "$name") namespace=$2" >"$WORK/$name.qemu" 2>&1 9>&- &
    echo $! >"$WORK/$name.pid"
    disown
    local tries
    for ((tries = 0; tries < 1200; tries++)); do
        grep -q GUEST-IS-UP "$WORK/$name.console" 2>/dev/null && in_guest "$name" 10 true && return
        kill -0 "$(cat "$WORK/$name.pid")" 2>/dev/null || break
        sleep 0.1
    done
    echo "guest $name did not come up:" && tail -5 "$WORK/$name.qemu" "$WORK/$name.console"
    return 1
}

# Pulls the plug: nothing in the guest hears of it.
power_off() {
    [ -e "$WORK/$1.pid" ] || return 0
    kill -9 "$(cat "$WORK/$1.pid")" 2>/dev/null
    rm -f "$WORK/$1.pid"
}

stand_still() { kill -STOP "$(cat "$WORK/$1.pid")"; }
go_on() { kill -CONT "$(cat "$WORK/$1.pid")"; }

# in_guest GUEST SECONDS 'commands': runs them there, prints what they print; exit code theirs, 99: no answer in time.
in_guest() {
    local answer code
    answer=$(printf 'cd /tmp\n{ %s\n} 2>&1\necho "exit-code=$?"\nexit\n' "$3" \
        | timeout "$2" busybox nc 127.0.0.1 $((PORT + $(number "$1"))) 2>/dev/null)
    code=${answer##*exit-code=}
    [[ $code =~ ^[0-9]+$ ]] || { echo "$answer"; echo "guest $1 gave no answer in $2 s to: $3"; return 99; }
    answer=${answer%exit-code=*}
    printf '%s' "$answer"
    return "$code"
}

# put GUEST FILE: copies a text file into /tmp there.
put() { in_guest "$1" 20 "base64 -d >/tmp/$(basename "$2") <<'EOF'
$(base64 "$2")
EOF"; }

# What a guest's shell runs to start a broker by COMMAND, and to wait until it listens; its log and process id are in broker.log and broker.pid.
until_ready() {
    cat <<EOF
touch broker.log; before=\$(grep -c ready: broker.log)
(setsid $1 </dev/null >>broker.log 2>&1 & echo \$! >broker.pid) </dev/null >/dev/null 2>&1
i=0; while [ \$i -lt 1200 ] && kill -0 \$(cat broker.pid) 2>/dev/null && [ \$(grep -c ready: broker.log) = \$before ]; do sleep 0.1; i=\$((i+1)); done
tail -3 broker.log; [ \$(grep -c ready: broker.log) != \$before ]
EOF
}
# The same until the broker is gone, for 30 s at most.
UNTIL_GONE='i=0; while [ $i -lt 300 ] && kill -0 $(cat broker.pid) 2>/dev/null; do sleep 0.1; i=$((i+1)); done'

# start GUEST CONFIG: starts embarlet there, and waits until it listens.
start() { in_guest "$1" 200 "$(until_ready "embarlet --config $2")"; }
# stop GUEST [FOLDER]: ends the broker that was started in that folder, /tmp if none is said.
stop() { in_guest "$1" 60 "cd ${2:-/tmp}; kill \$(cat broker.pid); $UNTIL_GONE"; }
