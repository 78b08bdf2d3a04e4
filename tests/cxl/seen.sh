# Sourced: what each of two hosts shows of the pool, of itself and of the other; and what is said of a client on a delayed link.
# shellcheck shell=bash disable=SC2016,SC2086

# Out of a screen of top.
causes_of_top() { sed -n '/who waits for whom/,/what flows/p' | sed -n 's/^\([^ ][^:]*\): .*/\1/p' | grep -v '^core taken away$'; }

# first_cause GUEST status|top|page: what is found to be slow or wrong, the worst first. That a thread had no core is true on a busy machine.
first_cause() {
    local how
    case $2 in
    status) how="embarctl status --json --pool /dev/dax0.0 | sed -n 's/^ *\"cause\": \"\\(.*\\)\",/\\1/p'" ;;
    top) in_guest "$1" 60 'embarctl top --once --pool /dev/dax0.0' | causes_of_top | head -1 && return ;;
    page) how="wget -qO- http://127.0.0.1:7380/status.json | grep -o '\"cause\":\"[^\"]*' | cut -d '\"' -f 4" ;;
    esac
    in_guest "$1" 60 "$how" | grep -v '^core taken away$' | head -1
}

# says_first WHAT GUEST status|top|page CAUSE: in one of five looks, since hosts this slow take over from each other now and then.
says_first() {
    local tries found
    for ((tries = 0; tries < 5; tries++)); do
        found=$(first_cause "$2" "$3")
        [ "$found" = "$4" ] && break
        sleep 1
    done
    is "$1: first is said by $3 on $2" "$found" "$4"
}

metrics() { in_guest "$1" 30 'wget -qO- http://127.0.0.1:7380/metrics'; }
# How far away the farthest publisher of lane 0 is, us.
farthest() { metrics A | awk '/^embarcadero_receive_farthest_seconds.broker="0",lane="0"/ { printf "%d", 1e6 * $2 }'; }

# publish_to_A NAME: a load from B to A's broker, for 40 s at most; until it is measured how far away it is.
publish_to_A() {
    in_background B "loadgen publish --no-discover --brokers $(address A):7300 --topic $1 --order 5 --duration 40s --message-size 512 --rate 100 --ack-timeout 300 --no-progress >$1.out 2>&1 & echo \$! >$1.pid"
    local tries
    for ((tries = 0; tries < 20; tries++)); do
        sleep 1
        [ "$(farthest)" -gt 0 ] && return
    done
    echo "nobody publishes on A after 20 s: $(in_guest B 10 "cat $1.out")"
    return 1
}
stop_publishing() { in_guest B 20 "kill \$(cat $1.pid); sleep 1"; }

# The link between the hosts is delayed by 20 ms: what is slow is the client, or the way to it, and that is said before anything else.
far_client() {
    local us how tries said
    check "a load over a short link" publish_to_A near
    # The shortest answer is looked for: there are few at first, and these hosts are slow.
    for tries in 1 2 3 4 5; do
        said=$(in_guest A 60 'embarctl status --json --pool /dev/dax0.0 | sed -n "s/^ *.cause.: .\(.*\).,/\1/p"')
        grep -q 'client far away' <<<"$said" || break
        sleep 1
    done
    us=$(farthest)
    if grep -q 'client far away' <<<"$said"; then bad "over a short link ($us us, look $tries) status says:" "$said"; else ok "over a short link ($us us) status says:" $said; fi
    stop_publishing near
    check "the link is delayed" in_guest B 10 "/bin/tc qdisc add dev \$(basename \$(dirname \$(grep -l 52:54:00:00:00 /sys/class/net/*/address))) root netem delay 20ms"
    check "a load over a link of 20 ms" publish_to_A far
    for how in status top page; do says_first "a link of 20 ms" A $how "client far away"; done
    says_first "a link of 20 ms, seen from the client's host" B status "client far away"
    said=$(in_guest A 60 'embarctl status --json --pool /dev/dax0.0 | grep -m 1 "ms away"')
    us=$(farthest)
    if grep -q 'the client at 10.9.0.2:[0-9]* is [0-9.]* ms away' <<<"$said"; then ok "in words:$(cut -d: -f2- <<<"$said")"; else bad "in words: $said"; fi
    if [ "$us" -ge 20000 ] && [ "$us" -lt 500000 ]; then ok "in the metric: $us us"; else bad "in the metric: $us us"; fi
    stop_publishing far
    check "the link is short again" in_guest B 10 "/bin/tc qdisc del dev \$(basename \$(dirname \$(grep -l 52:54:00:00:00 /sys/class/net/*/address))) root"
}

# What status says of the process of host N as it is seen from GUEST: where it is, and its number there.
whose() { # GUEST N
    local there
    there=$([ "$2" = 0 ] && echo A || echo B)
    echo "$([ "$there" = "$1" ] || echo " on host $2"), process $(in_guest "$there" 10 'cat broker.pid')"
}

# What a guest shows now, into files.
look_from() {
    status "$1" >"$WORK/seen.$1.status"
    in_guest "$1" 60 'embarctl top --once --pool /dev/dax0.0' >"$WORK/seen.$1.top"
    in_guest "$1" 60 'embarctl inspect /dev/dax0.0' >"$WORK/seen.$1.inspect"
    in_guest "$1" 30 'wget -qO- http://127.0.0.1:7380/status.json | grep -o "\"silent_brokers\":[^]]*]"' >"$WORK/seen.$1.page"
}

# both_seen WHEN LIFE-0 LIFE-1 STATE-0 STATE-1 SILENT: what each guest shows of both brokers and of the sequencer: by status, in top, and on the page of
# its own broker, if that serves.
both_seen() {
    local when=$1 guest said line broker candidate looks=()
    shift
    for guest in A B; do
        look_from $guest &
        looks+=($!)
    done
    wait "${looks[@]}"
    for guest in A B; do
        said=$(cat "$WORK/seen.$guest.status")
        for broker in 0 1; do
            line=$(grep "^broker $broker: " <<<"$said" | sed 's/, start .*//')
            is "$when, status on $guest" "$line" "broker $broker: $([ $broker = 0 ] && echo "$1" || echo "$2")$(whose "$guest" $broker)"
        done
        line=$(grep '^sequencer: ' <<<"$said" | sed 's/; .*//; s/epoch [0-9]*, //')
        candidate=$(grep -o '^sequencer: candidate [01]' <<<"$line" | grep -o '[01]$')
        is "$when, the sequencer as status on $guest says" "$line" "sequencer: candidate $candidate, running$(whose "$guest" "$candidate")"
        said=$(awk '$3 ~ /:7300$/ { printf "%s %s, ", $1, $2 }' "$WORK/seen.$guest.top")
        is "$when, top on $guest" "$said" "0 $3, 1 $4, "
        is "$when, inspect on $guest" "$(tail -1 "$WORK/seen.$guest.inspect")" "nothing is broken"
        [ "$([ "$guest" = A ] && echo "$1" || echo "$2")" = running ] || continue
        is "$when, silent as the page on $guest says" "$(cat "$WORK/seen.$guest.page")" "\"silent_brokers\":[$5]"
    done
}

# The names of all series of a host, but for those of the pool, of which each has its own.
series() { metrics "$1" | grep -v '^#\|_pool_' | sed 's/ [^ ]*$//' | sort; }
# Each series is on one host: brokers' on theirs, an attached publisher's on that of its place, the sequencer's where that is. It may move between two looks.
each_series_once() { # WHEN
    local tries twice on_a on_b found expected
    for ((tries = 0; tries < 5; tries++)); do
        on_a=$(series A) on_b=$(series B)
        twice=$(comm -12 <(echo "$on_a") <(echo "$on_b"))
        found=$(grep -ho 'sequencer_up{.*' <<<"$on_a"$'\n'"$on_b")
        expected="sequencer_up{candidate=\"$(number "$(sequencer A)")\"}"
        [ -z "$twice" ] && [ "$found" = "$expected" ] && break
    done
    is "$1, series that both hosts show" "$twice" ""
    is "$1, the sequencer in the metrics" "$found" "$expected"
    is "$1, brokers in A's" "$(grep -o 'broker_up{.*' <<<"$on_a")" 'broker_up{broker="0"}'
    is "$1, brokers in B's" "$(grep -o 'broker_up{.*' <<<"$on_b")" 'broker_up{broker="1"}'
    found=$(grep -c 'receive_published_batches_total{broker="1"' <<<"$on_b")
    if [ "$found" -gt 1 ]; then ok "$1, $found lanes in B's, an attached publisher's too"; else bad "$1, lanes in B's: $found"; fi
}

what_hosts_show() {
    local guest lost left states
    for guest in A B; do
        in_background $guest "loadgen e2e --brokers $(address $guest):7300 --topic seen$guest --order 5 --duration 60s --message-size 512 --rate 25 --lag-max 300s --ack-timeout 300s --no-progress >seen.out 2>&1 & echo \$! >seen.pid"
    done
    in_background B "i=1; while [ \$i -le 600 ]; do echo \$i; i=\$((i+1)); usleep 100000; done | embarctl produce --topic seen --create --order 5 --attach /dev/dax0.0 --host 1"
    sleep 4
    both_seen "under load" running running serving serving ""
    each_series_once "under load"
    lost=$(sequencer A)
    left=$(other "$lost")
    in_guest "$lost" 10 'kill -9 $(cat broker.pid)'
    sleep 3
    states=$([ "$lost" = A ] && echo "gone running gone serving 0" || echo "running gone serving gone 1")
    both_seen "host $(number "$lost")'s broker was killed" $states
    for guest in A B; do is "a broker was killed: first is said by top on $guest" "$(causes_of_top <"$WORK/seen.$guest.top" | head -1)" "broker gone"; done
    says_first "a broker was killed" "$left" page "broker gone"
    check "it is started again" start "$lost" "host-$(number "$lost").yaml"
    stop "$left"
    sleep 3
    states=$([ "$left" = A ] && echo "gone running stopped serving" || echo "running gone serving stopped")
    both_seen "host $(number "$left")'s broker was stopped" $states "$(number "$left")"
    for guest in A B; do
        said=$(causes_of_top <"$WORK/seen.$guest.top")
        if grep -q 'broker gone' <<<"$said"; then bad "a broker was stopped, top on $guest says:" $said; else ok "a broker was stopped, top on $guest says:" $said; fi
    done
    check "it is started again" start "$left" "host-$(number "$left").yaml"
    sleep 2
    each_series_once "after both came back"
    for guest in A B; do in_guest $guest 10 'kill $(cat seen.pid); kill $(pidof embarctl)' >/dev/null; done
}
