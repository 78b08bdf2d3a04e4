#!/bin/bash
# Arguments may be any bytes, outputs may take nothing, and what lies at a path may be something else: each is said in words, and nothing panics.
. "$(dirname "$0")/common.sh"

config
wrong=0
# expect STATUS WORDS WHAT...: it ends so, and says that.
expect() {
    local status=$1 words=$2
    shift 2
    timeout 20 "$@" >"$T/out" 2>"$T/err"
    local found=$?
    if [ $found -ne "$status" ] || ! grep -qF -- "$words" "$T/err" || grep -q panicked "$T/err"; then
        echo "$* ended with $found and not $status, or without \`$words\`: $(head -3 "$T/err")"
        wrong=1
    fi
}
expect 2 'unknown argument' "$BIN/embarlet" $'\xff\xfe'
expect 2 'cannot be read' "$BIN/embarlet" --config $'\xff\xfe'
cp "$T/c.yaml" "$T"/$'\xff.yaml'
timeout 20 "$BIN/embarlet" --config "$T"/$'\xff.yaml' --print-plan >"$T/out" 2>&1
grep -q 'threads.mode shared, threads.cores auto, threads.idle park' "$T/out" || { cat "$T/out"; wrong=1; }
expect 2 'cannot write to standard output' bash -c "exec '$BIN/embarlet' --config '$T/c.yaml' --print-plan >/dev/full"
expect 1 'neither a regular file nor a device' "$BIN/embarctl" status --pool /dev/null
# What is of something else is not to be formatted, whoever looks at it.
seq 100000 >"$T/foreign"
for look in "status --pool" "inspect" "top --once --pool"; do
    # shellcheck disable=SC2086 # two words
    expect 1 'it belongs to something else' "$BIN/embarctl" $look "$T/foreign"
    ! grep -q -- '--format' "$T/err" || { cat "$T/err"; wrong=1; }
done
exit $wrong
