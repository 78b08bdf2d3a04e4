# Sourced by run_main_job.sh and run_throughput.sh: broker processes on a pool of their own, and loadgen beside them. Whatever happens,
# no process and no pool is left behind. Sets ROOT, BINARIES, RUN and POOL; whoever sources it writes CONFIG.

NAME=$(basename "$0" .sh)
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release
RUN=$ROOT/run
POOL=/dev/shm/embarcadero-${NAME#run_}-$$
POOL=${POOL//_/-}
CONFIG=$RUN/$NAME.yaml
readonly NAME ROOT BINARIES RUN POOL CONFIG
readonly READY_DEADLINE_SEC=60
readonly STOP_DEADLINE_SEC=20

broker_pids=()
broker_logs=()
load_pid=
broker_failed=0

refuse() {
    echo "$NAME: $*" >&2
    exit 2
}

# start_broker LOG ARGUMENTS...: one process more. Each is started in a session of its own: a terminal's Ctrl-C reaches the script
# only, which then ends loadgen and the brokers in this order. (To each of them a second signal means: at once, without a last word.)
start_broker() {
    : >"$1" # An old log would look ready at once.
    setsid "$BINARIES/embarlet" --config "$CONFIG" "${@:2}" >"$1" 2>&1 &
    broker_pids+=($!)
    broker_logs+=("$1")
}

await_brokers() {
    local deadline=$((SECONDS + READY_DEADLINE_SEC)) i
    for i in "${!broker_pids[@]}"; do
        until grep -q 'ready: brokers' "${broker_logs[i]}"; do
            kill -0 "${broker_pids[i]}" 2>/dev/null || not_ready "$i" "ended before it was ready"
            ((SECONDS < deadline)) || not_ready "$i" "was not ready after $READY_DEADLINE_SEC s"
            sleep 0.05
        done
    done
}

# not_ready BROKER WHAT: says what the broker said last, and gives up.
not_ready() {
    echo "$NAME: broker $1 $2; the end of ${broker_logs[$1]}:" >&2
    tail -n 20 "${broker_logs[$1]}" >&2
    exit 2
}

# loadgen ARGUMENTS...: in the background, so that a signal to the script is acted on at once.
loadgen() {
    setsid "$BINARIES/loadgen" "$@" &
    load_pid=$!
    local status=0
    wait "$load_pid" || status=$?
    load_pid=
    return "$status"
}

# Asks every broker to end, and insists on those that do not.
stop_brokers() {
    local deadline=$((SECONDS + STOP_DEADLINE_SEC)) i status
    for i in "${!broker_pids[@]}"; do
        kill -TERM "${broker_pids[i]}" 2>/dev/null || blame "$i" "ENDED BEFORE IT WAS ASKED TO"
    done
    for i in "${!broker_pids[@]}"; do
        while kill -0 "${broker_pids[i]}" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.05
        done
        kill -KILL "${broker_pids[i]}" 2>/dev/null && blame "$i" "DID NOT STOP WITHIN $STOP_DEADLINE_SEC s AND WAS KILLED"
        status=0
        wait "${broker_pids[i]}" 2>/dev/null || status=$?
        ((status == 0)) || blame "$i" "ended with code $status"
    done
    broker_pids=()
}

blame() {
    echo "$NAME: broker $1 $2; see ${broker_logs[$1]}" >&2
    broker_failed=1
}

# shellcheck disable=SC2329 # invoked by the trap
clean_up() {
    trap '' INT TERM
    if [[ -n $load_pid ]]; then
        kill -TERM "$load_pid" 2>/dev/null || true
        wait "$load_pid" 2>/dev/null || true
    fi
    stop_brokers
    rm -f -- "$POOL"* "$CONFIG"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ended STATUS: the script's exit code, once loadgen has ended with this one and the brokers were stopped.
ended() {
    ((broker_failed && $1 == 0)) && exit 1
    exit "$1"
}
