#!/usr/bin/env bash
# Runs one throughput, latency or read test against brokers that are processes of their own.
#
# Settings, by environment (the contract of the reference system's script):
#   TOTAL_MESSAGE_SIZE            payload bytes in all                               [1073741824]
#   MESSAGE_SIZE                  payload bytes of each message                      [1024]
#   ORDER                         order level: 0, 1, 2, 4, 5                         [5]
#   ACK                           ack level: 0, 1, 2                                 [1]
#   TEST_TYPE                     5 publish, 1 end to end, 2 latency, 6 subscribe    [5]
#   NUM_BROKERS                   broker processes                                   [4]
#   NUM_CLIENTS                   publisher sessions                                 [1]
#   EMBARCADERO_ACK_TIMEOUT_SEC   longest time without an ack, seconds               [60]
#   POOL_BYTES                    size of the pool in /dev/shm, e.g. 2GiB            [2GiB]
#   FIRST_PORT                    broker i listens on 127.0.0.1:FIRST_PORT+i         [7400]
#
# Exit code: loadgen's (0 pass, 1 short or wrong, 2 usage or set-up, 130 interrupted); 1 if a broker dropped
# a batch, died, or had to be killed.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release
readonly RUN=$ROOT/run
readonly CONFIG=$RUN/run_throughput.yaml
readonly POOL=/dev/shm/embarcadero-throughput-$$.pool
readonly READY_DEADLINE_SEC=30
readonly STOP_DEADLINE_SEC=20
# One message at a time: more than this many only repeat the same figures.
readonly LATENCY_MESSAGES_MAX=100000

total=${TOTAL_MESSAGE_SIZE:-1073741824}
size=${MESSAGE_SIZE:-1024}
order=${ORDER:-5}
ack=${ACK:-1}
test_type=${TEST_TYPE:-5}
brokers=${NUM_BROKERS:-4}
clients=${NUM_CLIENTS:-1}
ack_timeout=${EMBARCADERO_ACK_TIMEOUT_SEC:-60}
pool_bytes=${POOL_BYTES:-2GiB}
first_port=${FIRST_PORT:-7400}

broker_pids=()
load_pid=
broker_failed=0

refuse() {
    echo "run_throughput: $*" >&2
    exit 2
}

# whole NAME VALUE MIN MAX: refuses a value that is not a whole number between the bounds.
whole() {
    if ! [[ $2 =~ ^(0|[1-9][0-9]{0,14})$ ]] || (($2 < $3 || $2 > $4)); then
        refuse "$1=$2 is not a whole number from $3 to $4"
    fi
}

check_settings() {
    whole TOTAL_MESSAGE_SIZE "$total" 1 1000000000000
    whole MESSAGE_SIZE "$size" 1 67108864
    whole NUM_BROKERS "$brokers" 1 64
    whole NUM_CLIENTS "$clients" 1 1024
    whole EMBARCADERO_ACK_TIMEOUT_SEC "$ack_timeout" 1 86400
    whole FIRST_PORT "$first_port" 1 $((65536 - brokers))
    [[ $order =~ ^[01245]$ ]] || refuse "ORDER=$order is none of 0, 1, 2, 4, 5"
    [[ $ack =~ ^[012]$ ]] || refuse "ACK=$ack is none of 0, 1, 2"
    [[ $test_type =~ ^[1256]$ ]] || refuse "TEST_TYPE=$test_type is none of 5 (publish), 1 (end to end), 2 (latency), 6 (subscribe)"
    [[ $pool_bytes =~ ^[0-9]+([KMGT]iB)?$ ]] || refuse "POOL_BYTES=$pool_bytes is not a size like 2GiB"
}

build_if_missing() {
    if [[ ! -x $BINARIES/embarlet || ! -x $BINARIES/loadgen ]]; then
        (cd "$ROOT" && cargo build --release -p embarcadero -p loadgen)
    fi
}

log_of() {
    echo "$RUN/broker_$1_trial1.log"
}

write_config() {
    {
        echo "# Written by tools/run_throughput.sh"
        echo "pool: { path: $POOL, bytes: $pool_bytes, create: if_missing, coherence: software }"
        echo "brokers:"
        for ((i = 0; i < brokers; i++)); do
            echo "  - { id: $i, host: 0, address: \"127.0.0.1:$((first_port + i))\" }"
        done
        echo "sequencer: { candidates: [0] }"
        echo "log: info"
    } >"$CONFIG"
}

# Every process is started in a session of its own: a Ctrl-C reaches this script only, which then ends loadgen
# and the brokers in this order. (To each of them a second signal means: at once, without a last word.)
start_brokers() {
    rm -f -- "$RUN"/broker_*_trial1.log # An old log would look ready at once.
    for ((i = 0; i < brokers; i++)); do
        : >"$(log_of "$i")"
        setsid "$BINARIES/embarlet" --config "$CONFIG" --brokers "$i" >"$(log_of "$i")" 2>&1 &
        broker_pids[i]=$!
    done
    local deadline=$((SECONDS + READY_DEADLINE_SEC))
    for ((i = 0; i < brokers; i++)); do
        until grep -qw ready "$(log_of "$i")"; do # As a word: "already in use" is another thing.
            kill -0 "${broker_pids[i]}" 2>/dev/null || not_ready "$i" "died before it was ready"
            ((SECONDS < deadline)) || not_ready "$i" "was not ready after $READY_DEADLINE_SEC s"
            sleep 0.05
        done
    done
}

# not_ready BROKER WHAT: says what the broker said last, and gives up.
not_ready() {
    echo "run_throughput: broker $1 $2; the end of $(log_of "$1"):" >&2
    tail -n 20 "$(log_of "$1")" >&2
    exit 2
}

# loadgen ARGUMENTS...: in the background, so that a signal to this script is acted on at once.
loadgen() {
    setsid "$BINARIES/loadgen" "$@" &
    load_pid=$!
    local status=0
    wait "$load_pid" || status=$?
    load_pid=
    return "$status"
}

run_test() {
    local addresses
    addresses=$(for ((i = 0; i < brokers; i++)); do echo "127.0.0.1:$((first_port + i))"; done | paste -sd,)
    local topic=(--brokers "$addresses" --order "$order" --ack "$ack" --message-size "$size")
    local load=(--total-bytes "$total" --sessions "$clients" --ack-timeout "$ack_timeout")
    local json=(--json "$RUN/loadgen_trial1.json")
    case $test_type in
        5) loadgen publish "${topic[@]}" "${load[@]}" "${json[@]}" ;;
        1) loadgen e2e "${topic[@]}" "${load[@]}" "${json[@]}" ;;
        2)
            local messages=$((total / size))
            ((messages <= LATENCY_MESSAGES_MAX)) || messages=$LATENCY_MESSAGES_MAX
            ((messages > 0)) || messages=1
            loadgen latency "${topic[@]}" --messages "$messages" --subscribers 1 --ack-timeout "$ack_timeout" "${json[@]}"
            ;;
        6) # Read what was published before. Old messages of a total near the pool's size make room for new ones.
            loadgen publish "${topic[@]}" "${load[@]}" || return
            local until=(--until-caught-up)
            ((total > $(numfmt --from=auto "${pool_bytes%B}") / 4)) || until=(--count $((total / size)))
            loadgen subscribe "${topic[@]}" "${until[@]}" "${json[@]}"
            ;;
    esac
}

# Asks every broker to end, and insists on those that do not.
stop_brokers() {
    local deadline=$((SECONDS + STOP_DEADLINE_SEC)) i status
    for i in "${!broker_pids[@]}"; do
        if ! kill -TERM "${broker_pids[i]}" 2>/dev/null; then
            echo "run_throughput: BROKER $i ENDED BEFORE IT WAS ASKED TO; see $(log_of "$i")" >&2
            broker_failed=1
        fi
    done
    for i in "${!broker_pids[@]}"; do
        while kill -0 "${broker_pids[i]}" 2>/dev/null && ((SECONDS < deadline)); do
            sleep 0.05
        done
        if kill -KILL "${broker_pids[i]}" 2>/dev/null; then
            echo "run_throughput: BROKER $i DID NOT STOP WITHIN $STOP_DEADLINE_SEC s AND WAS KILLED; see $(log_of "$i")" >&2
            broker_failed=1
        fi
        status=0
        wait "${broker_pids[i]}" 2>/dev/null || status=$?
        if ((status != 0)); then
            echo "run_throughput: broker $i ended with code $status; see $(log_of "$i")" >&2
            broker_failed=1
        fi
    done
    broker_pids=()
}

# count PATTERN FILE...: lines with it, in all files together.
count() {
    cat "${@:2}" | grep -c "$1" || true
}

# Says where the logs are and what they count. Fails if a broker says that it dropped a batch.
print_logs() {
    local logs=() i dropped
    for ((i = 0; i < brokers; i++)); do
        logs+=("$(log_of "$i")")
    done
    echo "logs:"
    printf '  %s\n' "${logs[@]}"
    echo "Ring full: $(count 'Ring full' "${logs[@]}")"
    dropped=$(count 'Dropping batch' "${logs[@]}")
    echo "Dropping batch: $dropped"
    grep -h total_processed "${logs[@]}" | tail -n 4 || true
    ((dropped == 0))
}

# Whatever happens: no process and no pool is left behind.
# shellcheck disable=SC2329 # invoked by the trap
clean_up() {
    trap '' INT TERM
    if [[ -n $load_pid ]]; then
        kill -TERM "$load_pid" 2>/dev/null || true
        wait "$load_pid" 2>/dev/null || true
    fi
    stop_brokers
    rm -f -- "$POOL"*
}

main() {
    check_settings
    build_if_missing
    mkdir -p "$RUN"
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    write_config
    start_brokers
    local status=0
    run_test || status=$?
    stop_brokers
    print_logs || broker_failed=1
    if ((broker_failed && status == 0)); then
        status=1
    fi
    exit "$status"
}

main "$@"
