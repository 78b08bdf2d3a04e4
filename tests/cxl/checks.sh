# Sourced: what run.sh finds out, and how it says so.
# shellcheck shell=bash

faults=0
ok() { echo "ok    [$SECONDS s] $*"; }
bad() { echo "FAULT [$SECONDS s] $*" && faults=$((faults + 1)); }

# check WHAT command...: whether it succeeds; what it prints is shown if not.
check() {
    local what=$1 said
    shift
    if said=$("$@" 2>&1); then ok "$what"; else bad "$what: $(tail -c 600 <<<"$said")"; fi
}

# is WHAT FOUND EXPECTED
is() { if [ "$2" = "$3" ]; then ok "$1"; else bad "$1: found '$2', expected '$3'"; fi; }

# refused WHAT GUEST WORDS 'command': it fails, and says these words; all of what it says is shown.
refused() {
    local said
    if said=$(in_guest "$2" 60 "$4"); then bad "$1: it was not refused: $(tail -c 400 <<<"$said")"; return; fi
    if grep -q -- "$3" <<<"$said"; then ok "$1 is refused: $(grep -- "$3" <<<"$said" | head -1)"; else bad "$1: $(tail -c 400 <<<"$said")"; fi
}

# passed WHAT GUEST FILE: a load generator's verdict there, and that it was fenced nowhere.
passed() {
    local said
    said=$(in_guest "$2" 20 "cat $3")
    if grep -q '^PASS' <<<"$said" && grep -q ' 0 fences' <<<"$said"; then
        ok "$1: $(grep '^PASS' <<<"$said"); $(grep -o '[0-9]* batches resent.*fences' <<<"$said")$(grep -o 'publish to ack.*' <<<"$said" | grep -o 'max [0-9.]*' | head -1 | sed 's/^max/; µs from publish to ack at most/')"
    else
        bad "$1: $(tail -5 <<<"$said")"
    fi
}

status() { in_guest "$1" 30 'embarctl status --pool /dev/dax0.0'; }
# The guest whose host has the sequencer: candidates take turns by host.
sequencer() { if status "$1" | grep -q '^sequencer: candidate 0,'; then echo A; else echo B; fi; }
quarantined() { status "$1" | grep -o '[0-9]* in quarantine'; }

# Housekeeping looks twice before it gives back what the dead have.
nothing_quarantined() {
    local tries
    for ((tries = 0; tries < 20; tries++)); do
        [ "$(quarantined "$1")" = "0 in quarantine" ] && return
        sleep 1
    done
    echo "$(quarantined "$1") after 20 s"
    return 1
}

digest() { in_guest "$1" 120 "embarctl consume --topic $2 --from earliest --brokers $(address "$1"):7300 --format '%o %S %b %l\\n' 2>/dev/null | md5sum"; }
same_order() { is "$1: one order on both hosts" "$(digest A "$2")" "$(digest B "$2")"; } # WHAT TOPIC

in_background() { in_guest "$1" 20 "($2) </dev/null >/dev/null 2>&1 &"; }
wait_for_file() { # GUEST FILE SECONDS
    local tries
    for ((tries = 0; tries < $3; tries++)); do
        in_guest "$1" 20 "test -s $2" >/dev/null && return
        sleep 1
    done
    echo "no $2 on $1 after $3 s"
    return 1
}
