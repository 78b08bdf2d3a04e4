# What the cases share: a broker on a pool and a port of its own, gone with everything at the end. Sourced by each case, which is
# run by `cargo test -p embarctl --test cases` with BIN, the folder of the binaries.
#
# Exit 0: as a user rightly expects. 1: not so. 77: cannot be tried here, and why is said.
set -u
: "${BIN:?the folder of embarlet and embarctl}"
CASE=$(basename "$0" .sh)
POOL=/dev/shm/embarcadero-case-$CASE-$$
# Of this run alone, below what the kernel gives to those who ask for any: the lock lasts as long as this shell.
claim_port() {
    local n
    for n in $(seq 100); do
        PORT=$((10000 + (RANDOM * 32768 + RANDOM) % 20000))
        exec 7>"${TMPDIR:-/tmp}/embarcadero-case-port-$PORT"
        flock -n 7 && ! (exec 6<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null && return
        exec 7>&-
    done
    echo "no free port was found"
    exit 1
}
claim_port
T=$(mktemp -d)
PIDS=""

finish() {
    for p in $PIDS; do kill -9 "$p" 2>/dev/null; done
    wait 2>/dev/null
    rm -rf "$T" "$POOL" "${TMPDIR:-/tmp}/embarcadero-case-port-$PORT"
}
trap finish EXIT

# Writes the configuration, with a line of the case's own.
config() {
    cat >"$T/c.yaml" <<Y
pool: { path: $POOL, bytes: 64MiB, coherence: hardware }
geometry: { extent_bytes: 1MiB }
brokers:
  - { address: "127.0.0.1:$PORT" }
threads: { mode: shared, idle: park }
${1-}
Y
}

# Waits until the broker of process $P orders.
await_broker() {
    for _ in $(seq 100); do
        grep -q 'active, epoch' "$T/log" && return
        sleep 0.1
    done
    echo "the broker did not start: $(tail -3 "$T/log")"
    exit 1
}

start() {
    "$BIN/embarlet" --config "$T/c.yaml" "$@" >"$T/log" 2>&1 &
    P=$!
    PIDS="$PIDS $P"
    await_broker
}

stop() {
    kill "$1" 2>/dev/null
    for _ in $(seq 50); do
        kill -0 "$1" 2>/dev/null || return
        sleep 0.1
    done
    kill -9 "$1"
}

ctl() {
    local verb=$1
    shift
    timeout 20 "$BIN/embarctl" "$verb" --brokers "127.0.0.1:$PORT" "$@"
}

skip() {
    echo "cannot be tried here: $1"
    exit 77
}
