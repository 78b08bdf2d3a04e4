# Sourced: two hosts, and what happens to them.
# shellcheck shell=bash

# switch_on GUEST make|find: with its configuration.
switch_on() {
    local file
    power_on "$1" "$2" || return
    for file in one host-0 host-1; do put "$1" "$here/$file.yaml" || return; done
}

# A message to A's broker and back.
there_and_back() {
    local said
    said=$(in_guest A 60 "echo hello | embarctl produce --topic there --create --brokers $(address A):7300 2>/dev/null; embarctl consume --topic there --from earliest --count 1 --brokers $(address A):7300")
    is "a message there and back" "$said" hello
}

begin() {
    new_device
    check "guest A is up, and makes a region and a namespace" switch_on A make
    # The second one has the same labels, as two hosts of one device do.
    cp "$WORK/A.lsa" "$WORK/B.lsa"
    check "guest B is up, and finds them" switch_on B find
    ok "device: $(in_guest A 10 'cat /sys/bus/dax/devices/dax0.0/size') bytes, in pieces of $(in_guest A 10 'cat /sys/bus/dax/devices/dax0.0/align')"
}

# Memory that is none of a device in its own mode: given to the kernel, and huge pages.
kinds_of_memory() {
    refused "a device that the kernel has as its memory" A "system-ram" 'daxctl reconfigure-device --mode=system-ram --no-online dax0.0 >/dev/null; embarlet --config host-0.yaml --format-only'
    check "it is a device again" in_guest A 30 'daxctl reconfigure-device --mode=devdax --force dax0.0'
    refused "a device that is disabled" A "no driver has it" 'daxctl disable-device dax0.0 >/dev/null; embarlet --config host-0.yaml --format-only'
    check "it is enabled again" in_guest A 30 'daxctl enable-device dax0.0'
    in_guest A 30 'echo 24 >/proc/sys/vm/nr_hugepages; mkdir /huge; mount -t hugetlbfs none /huge; sed "s#/dev/dax0.0#/huge/pool#; s/hosts: 2/hosts: 1/; s/candidates: 2/candidates: 1/" host-0.yaml >huge.yaml'
    refused "a pool in huge pages that is no multiple of them" A "no multiple of" 'sed s/32MiB/33MiB/ huge.yaml >x.yaml; embarlet --config x.yaml --format-only'
    refused "a pool in huge pages of which there are not enough" A "huge pages" 'sed s/32MiB/64MiB/ huge.yaml >x.yaml; embarlet --config x.yaml --format-only'
    check "formatted in huge pages" in_guest A 60 'embarlet --config huge.yaml --format-only'
    check "a broker on huge pages" start A huge.yaml
    there_and_back
    stop A
    in_guest A 30 'rm /huge/pool; umount /huge; echo 0 >/proc/sys/vm/nr_hugepages'
}

formatting() {
    refused "a blank device" A "never completely formatted" 'embarlet --config host-0.yaml'
    refused "a device that is not there" A "there is no such device" "sed 's/dax0.0/dax7.0/' host-0.yaml >x.yaml; embarlet --config x.yaml"
    refused "a pool larger than the device" A "the device has" "sed 's/32MiB/1GiB/' host-0.yaml >x.yaml; embarlet --config x.yaml --format-only"
    refused "a length that cannot be mapped" A "no multiple of" "sed 's/32MiB/33555456/' host-0.yaml >x.yaml; embarlet --config x.yaml --format-only"
    refused "hardware coherence of two hosts" A "hosts_are_coherent" "sed 's/coherence: software/coherence: hardware/' host-0.yaml >x.yaml; embarlet --config x.yaml --format-only"
    check "the whole device is formatted (bytes: auto)" in_guest A 120 'embarlet --config one.yaml --format-only'
    refused "one host's pool for two hosts" A "it was formatted with" 'sed "s/, bytes: 32MiB//" host-0.yaml >x.yaml; embarlet --config x.yaml'
    check "formatted for two hosts" in_guest A 60 'embarlet --config host-0.yaml --format-only'
}

two_machines() {
    check "a broker on A" start A host-0.yaml
    check "a broker on B" start B host-1.yaml
    is "the device is mapped in pieces of 2 MiB" "$(in_guest A 10 'grep -A3 /dev/dax0.0 /proc/$(cat broker.pid)/smaps | grep -o "KernelPageSize: *[0-9]* kB" | tr -s " "')" "KernelPageSize: 2048 kB"
    refused "host 0's broker on the machine of host 1" B "lives on another machine" 'sed s/7300/7301/g host-0.yaml >x.yaml; embarlet --config x.yaml'
    refused "attaching on B as host 0" B "lives on another machine" 'echo x | embarctl produce --topic x --create --attach /dev/dax0.0 --host 0'
    refused "another coherence than the pool's" A "formatted for coherence" "sed 's/coherence: software/coherence: hardware, hosts_are_coherent: true/;s/7300/7301/g' host-0.yaml >x.yaml; embarlet --config x.yaml"
    refused "formatting under host 1's broker" A "somebody lives in it\|another process uses it" 'kill $(cat broker.pid); sleep 2; embarlet --config host-0.yaml --format-only'
    refused "forgetting host 1, which runs" A "is not off" 'embarctl host forget 1 --pool /dev/dax0.0 --powered-off'
    check "A's broker again" start A host-0.yaml
    said=$(status B)
    if grep -q '^broker 0: running' <<<"$said"; then ok "status on B knows A's broker: $(grep 'broker 0' <<<"$said" | head -1)"; else bad "status on B: $(head -8 <<<"$said")"; fi
}

one_order() {
    check "a topic" in_guest A 60 "embarctl topic create both --order 5 --brokers $(address A):7300"
    for guest in A B; do
        in_background $guest "for i in \$(seq 1 1000); do echo $guest-\$i; done | embarctl produce --topic both --brokers $(address $guest):7300 >produced 2>&1; echo done >>produced.end"
    done
    for guest in A B; do check "a thousand lines published on $guest" wait_for_file $guest produced.end 60; done
    same_order "2,000 lines of two hosts" both
    for guest in A B; do
        in_background $guest "for i in \$(seq 1 100); do echo $guest-\$i; done | embarctl produce --topic shared --create --order 5 --attach /dev/dax0.0 --host $(number $guest) >shared.out 2>&1; echo done >>shared.end"
    done
    for guest in A B; do check "a hundred lines published attached on $guest" wait_for_file $guest shared.end 60; done
    same_order "200 lines of attached publishers of two hosts" shared
    for guest in A B; do
        lines=$(in_guest $guest 60 "embarctl consume --topic both --from earliest --attach /dev/dax0.0 --host $(number $guest) 2>/dev/null | sort -u | wc -l")
        is "an attached reader of host $(number $guest) has all 2,000" "${lines//[^0-9]/}" 2000
    done
}

kill_and_reboot() {
    before=$(digest B both)
    in_guest A 10 'kill -9 $(cat broker.pid)'
    check "A's broker after kill -9" start A host-0.yaml
    is "the same after kill -9" "$(digest A both)" "$before"
    power_off A
    check "guest A is up again" switch_on A find
    check "A's broker after a reboot" start A host-0.yaml
    is "the same after a reboot" "$(digest A both)" "$before"
}

# load GUEST NAME options: a verified load in the background, whose lines are in NAME.out.
load() { in_background "$1" "loadgen e2e --topic $2 --order 5 --duration 25s --message-size 512 --rate 25 --lag-max 300s --ack-timeout 300s --no-progress $3 >$2.out 2>&1; echo done >$2.end"; }

lose_the_sequencer() {
    local lost left blog
    lost=$(sequencer A)
    left=$(other "$lost")
    in_background "$lost" "embarctl consume --topic both --follow --brokers $(address "$lost"):7300"
    in_background "$lost" "embarctl consume --topic both --follow --attach /dev/dax0.0 --host $(number "$lost")"
    load "$lost" gone "--attach /dev/dax0.0 --host $(number "$lost")"
    load "$left" load "--brokers $(address "$left"):7300"
    load "$left" attached "--attach /dev/dax0.0 --host $(number "$left")"
    sleep 10
    power_off "$lost"
    ok "host $(number "$lost"), which had the sequencer, is off; on it: a broker, an attached publisher, subscribers of both kinds"
    for load in load attached; do
        check "the load on host $(number "$left") ends" wait_for_file "$left" $load.end 180
        passed "acked lost 0" "$left" $load.out
    done
    blog=$(status "$left" | grep -o '[0-9]* of them for batches' | grep -o '^[0-9]*')
    in_guest "$left" 400 "timeout 390 loadgen publish --no-discover --brokers $(address "$left"):7300 --topic fill --order 5 --total-bytes $((3 * blog / 65536 * 65536)) --message-size 4096 --batch-bytes 64KiB --ack-timeout 60 --no-progress >fill.out 2>&1"
    passed "the survivor goes round the pool three times" "$left" fill.out
    ok "what the lost host has: $(quarantined "$left")"
    check "the lost guest is up again" switch_on "$lost" find
    check "its broker takes its place again" start "$lost" "host-$(number "$lost").yaml"
    for topic in load attached; do same_order "after the return" $topic; done
    check "what its attached publisher had is back, too" nothing_quarantined "$lost"
}

stand_still_and_go_on() {
    local still topic=stood said
    check "a topic" in_guest A 60 "embarctl topic create $topic --order 5 --brokers $(address A):7300"
    for guest in A B; do
        in_background $guest "i=1; while [ \$i -le 400 ]; do echo $guest-\$i; i=\$((i+1)); usleep 50000; done | embarctl produce --topic $topic --brokers $(address $guest):7300 >stood.out 2>&1; echo done >stood.end"
        in_background $guest "embarctl consume --topic $topic --from earliest --follow --count 800 --brokers $(address $guest):7300 --format '%o %s\\n' >live.out 2>live.err; echo done >live.end"
        in_background $guest "embarctl consume --topic $topic --from earliest --follow --count 800 --attach /dev/dax0.0 --host $(number $guest) --format '%o %s\\n' >attached.out 2>attached.err; echo done >attached.end"
    done
    sleep 6
    still=$(sequencer A)
    stand_still "$still"
    sleep 10
    is "the other host has the sequencer" "$(sequencer "$(other "$still")")" "$(other "$still")"
    go_on "$still"
    for guest in A B; do
        check "host $(number $guest)'s lines are published" wait_for_file $guest stood.end 120
        for reader in live attached; do
            check "host $(number $guest)'s $reader reader has read 800" wait_for_file $guest $reader.end 60
            said=$(in_guest $guest 30 "awk '{ if (\$1 != NR - 1) bad++; split(\$2, part, \"-\"); if (part[2] != ++next_of[part[1]]) bad++ } END { print NR, bad + 0 }' $reader.out")
            is "lines and faults of it" "${said//$'\n'/}" "800 0"
        done
    done
    same_order "after host $(number "$still") stood still" $topic
}

# A host that will not be back, and another machine that takes its number.
replace_a_host() {
    power_off B
    sleep 1
    check "host 1 is forgotten" in_guest A 60 'embarctl host forget 1 --pool /dev/dax0.0 --powered-off'
    is "what it had is back" "$(quarantined A)" "0 in quarantine"
    check "another machine is host 1" switch_on B find
    check "its broker" start B host-1.yaml
    same_order "with the new machine" stood
}

no_errors() {
    local errors
    for guest in A B; do
        errors=$(in_guest $guest 10 'grep -h "ERROR\|FAULT" broker.log | head -3')
        is "no error in host $(number $guest)'s log" "$errors" ""
    done
}

# Somebody formats the pool while a host stands still: nothing says that it lives.
format_under_a_host() {
    local said
    stand_still B
    check "formatted while host 1 stands still" in_guest A 60 'kill $(cat broker.pid); sleep 2; embarlet --config host-0.yaml --format-only'
    check "a broker on the new pool" start A host-0.yaml
    go_on B
    said=$(in_guest B 60 "$UNTIL_GONE; grep FAULT broker.log | tail -1; tail -1 broker.log")
    if grep -q 'formatted' <<<"$said"; then ok "host 1's broker says so and ends: $(grep -m 1 formatted <<<"$said" | cut -c1-220)"; else bad "host 1's broker under a new format: $said"; fi
    check "and starts on the new pool" start B host-1.yaml
}

# A device that is mapped in pieces of 1 GiB: after the operators' page, whose device is large enough.
large_pieces() {
    stop A /
    check "a namespace in pieces of 1 GiB" in_guest A 60 'ndctl destroy-namespace -f namespace0.0 && ndctl create-namespace -f -m devdax -M mem -a 1G'
    is "its pieces" "$(in_guest A 10 'cat /sys/bus/dax/devices/dax0.0/align')" 1073741824
    put A "$here/one.yaml"
    refused "half a piece" A "no multiple of 1073741824" 'sed "s#/dev/dax0.0,#/dev/dax0.0, bytes: 1536MiB,#" one.yaml >x.yaml; embarlet --config x.yaml --format-only'
    check "the whole device is formatted (bytes: auto)" in_guest A 120 'embarlet --config one.yaml --format-only'
    check "a broker on it" start A one.yaml
    ok "$(in_guest A 10 'grep -o "pool /dev/dax0.0: attached, [0-9]* bytes" broker.log | tail -1')"
    there_and_back
}

# The hardware reports a page that batches lie in: of the pool that format_under_a_host has left.
memory_fails() {
    local at said
    in_guest A 60 "seq 1 100 | embarctl produce --topic torn --create --brokers $(address A):7300 2>/dev/null"
    at=$(in_guest A 20 'embarlet --config host-0.yaml --print-layout' | awk '/ blog extents / { print $1; exit }')
    in_guest A 20 "echo 1 >/proc/sys/vm/memory_failure_early_kill; printf '0x%x' \$((\$(cat /sys/bus/dax/devices/dax0.0/resource) + $at)) >/sys/devices/system/memory/hard_offline_page"
    said=$(in_guest A 60 "$UNTIL_GONE; grep 'FAULT: SIGBUS' broker.log")
    if grep -q "offset $at of pool /dev/dax0.0: the hardware reports" <<<"$said"; then ok "A's broker says so and ends: $said"; else bad "A's broker on failed memory: $said"; fi
    check "A's broker again" start A host-0.yaml
    said=$(status B)
    if grep -q "memory failed at offset $at: extent 0 is out of use" <<<"$said"; then ok "status on B: $(grep 'memory failed' <<<"$said")"; else bad "status on B: $said"; fi
    in_guest A 200 "timeout 190 loadgen publish --no-discover --brokers $(address A):7300 --topic fill --order 5 --total-bytes 32MiB --message-size 4096 --batch-bytes 64KiB --ack-timeout 60 --no-progress >fill.out 2>&1"
    passed "round the pool without it" A fill.out
}
