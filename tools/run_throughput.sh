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

# shellcheck source=brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/brokers.sh"
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

write_config() {
    {
        echo "# Written by tools/run_throughput.sh"
        echo "pool: { path: $POOL, bytes: $pool_bytes, create: if_missing, coherence: software }"
        echo "brokers:"
        for ((i = 0; i < brokers; i++)); do
            echo "  - { address: \"127.0.0.1:$((first_port + i))\" }"
        done
        echo "log: info"
    } >"$CONFIG"
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

# count PATTERN FILE...: lines with it, in all files together.
count() {
    cat "${@:2}" | grep -c "$1" || true
}

# Says where the logs are and what they count. Fails if a broker says that it dropped a batch.
print_logs() {
    local dropped
    echo "logs:"
    printf '  %s\n' "${broker_logs[@]}"
    echo "Ring full: $(count 'Ring full' "${broker_logs[@]}")"
    dropped=$(count 'Dropping batch' "${broker_logs[@]}")
    echo "Dropping batch: $dropped"
    grep -h total_processed "${broker_logs[@]}" | tail -n 4 || true
    ((dropped == 0))
}

check_settings
build_if_missing
mkdir -p "$RUN"
write_config
rm -f -- "$RUN"/broker_*_trial1.log
for ((i = 0; i < brokers; i++)); do
    start_broker "$RUN/broker_${i}_trial1.log" --brokers "$i"
done
await_brokers
status=0
run_test || status=$?
stop_brokers
print_logs || broker_failed=1
ended "$status"
