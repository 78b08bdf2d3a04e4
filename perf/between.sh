#!/usr/bin/env bash
# Two commits, or two configurations, with each other: in turn, several times, the medians beside each other and their ratio.
#
#   perf/between.sh A B [ARGUMENTS]...             commits, by whatever name git knows them; `.` is the working tree
#   perf/between.sh A.yaml B.yaml [ARGUMENTS]...   configurations, both run by the working tree's binaries
#
# Commits: each is built in a folder of its own, target/compare/COMMIT, which stays for the next time. Arguments go to `compare` of both: --total,
# --sessions, …, and --cases [order5,order0,ack_park,deliver_park].
# Configurations: arguments go to `loadgen e2e` of both: --total-bytes, --sessions, …; `loadgen latency` is run as well. A pool that is a file is
# replaced by a new one for each run. One on a device is formatted for each run, which loses all that is in it: only with FORMAT=1.
#
# Settings, by environment: ROUNDS [5]. What was measured is in run/between/.
set -euo pipefail

(($# >= 2)) || { sed -n '2,/^set /s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
readonly A=$1 B=$2 ROUNDS=${ROUNDS:-5}
shift 2

# For configurations: broker processes on a pool of their own, and nothing left behind.
# shellcheck source=../tools/brokers.sh
source "$(dirname "${BASH_SOURCE[0]}")/../tools/brokers.sh"
readonly KEPT=${CARGO_TARGET_DIR:-$ROOT/target}/compare
readonly OUT=$RUN/between
readonly SEEN_ROUNDS='^[1-9][0-9]*$'
[[ $ROUNDS =~ $SEEN_ROUNDS ]] || refuse "ROUNDS is a number from 1 on, found \`$ROUNDS\`"

is_commit() {
    [[ $1 == . ]] || git -C "$ROOT" rev-parse --verify --quiet "$1^{commit}" >/dev/null
}

# folder_of REVISION: where its binaries are, or will be.
folder_of() {
    if [[ $1 == . ]]; then
        echo "$BINARIES"
    else
        echo "$KEPT/$(git -C "$ROOT" rev-parse --short=12 "$1^{commit}")/target/release"
    fi
}

# build REVISION: its brokers and its comparison. A copy of the commit's files is enough, and leaves nothing in the repository.
build() {
    [[ $1 != . ]] || return 0
    local commit folder
    commit=$(git -C "$ROOT" rev-parse --short=12 "$1^{commit}")
    folder=$KEPT/$commit
    if ! [[ -e $folder/.complete ]]; then
        rm -rf -- "$folder"
        mkdir -p "$folder"
        git -C "$ROOT" archive "$commit" | tar -x -C "$folder"
        touch "$folder/.complete"
    fi
    echo "$NAME: building $1 ($commit) in $folder" >&2
    # The repository around it is another commit: reports are to name this one.
    (cd "$folder" && GIT_CEILING_DIRECTORIES=$KEPT EMBARCADERO_GIT_ID=$commit CARGO_TARGET_DIR=$folder/target \
        cargo build --release --quiet -p embarcadero -p embarcadero-perf) || refuse "$1 ($commit) does not build"
}

# measure_commit SIDE ROUND REVISION ARGUMENTS...
measure_commit() {
    local log=$OUT/$1-$2.log
    "$(folder_of "$3")/compare" "${cases[@]}" "${@:4}" --runs 1 --json "$OUT/$1-$2.json" >"$log" 2>&1 || {
        tail -n 12 "$log" >&2
        refuse "$3: \`compare\` failed; all it said: $log"
    }
}

# measure_configuration SIDE ROUND FILE ARGUMENTS...
measure_configuration() {
    local side=$1 round=$2 log=$OUT/$1-$2.log format=() path addresses
    "$BINARIES/embarlet" --config "$3" --check-config >"$CONFIG" 2>"$log" || refuse "$3 cannot be used here: $(cat "$log")"
    path=$(sed -n 's/^  path: //p' "$CONFIG")
    if [[ -c $path ]]; then
        [[ ${FORMAT:-0} == 1 ]] || refuse "$3: its pool is the device $path, and every run formats it: say FORMAT=1 if what is in it may be lost"
        format=(--format)
    else
        sed -i "s|^  path: .*|  path: $POOL|" "$CONFIG"
    fi
    broker_logs=()
    start_broker "$log" "${format[@]}"
    await_brokers
    addresses=$(sed -n 's/.*ready: brokers .* listen on //p' "$log" | tr -d ' ')
    loadgen e2e --brokers "$addresses" --no-discover "${@:4}" --json "$OUT/$side-$round-e2e.json" >>"$log" 2>&1 ||
        refuse "$3: \`loadgen e2e\` did not pass: $(tail -n 5 "$log"); all of it: $log"
    loadgen latency --brokers "$addresses" --no-discover --subscribers 1 --json "$OUT/$side-$round-latency.json" >>"$log" 2>&1 ||
        refuse "$3: \`loadgen latency\` did not pass: $(tail -n 5 "$log"); all of it: $log"
    stop_brokers
    rm -f -- "$POOL"*
}

cases=()
if [[ -f $A && -f $B ]]; then
    measure=measure_configuration
elif is_commit "$A" && is_commit "$B"; then
    measure=measure_commit
    [[ " $* " == *" --cases"* ]] || cases=("--cases=order5,order0,ack_park,deliver_park")
else
    refuse "\`$A\` and \`$B\` are neither two files nor two commits"
fi
rm -rf -- "$OUT"
mkdir -p "$OUT"
(cd "$ROOT" && cargo build --release --quiet -p embarcadero -p embarcadero-perf -p loadgen)
if [[ $measure == measure_commit ]]; then
    build "$A"
    build "$B"
fi

for ((round = 1; round <= ROUNDS; round++)); do
    # Each comes first in every other round: neither always profits from what the other left.
    order=(a b)
    ((round % 2)) || order=(b a)
    for side in "${order[@]}"; do
        what=$A
        [[ $side == a ]] || what=$B
        echo "$NAME: round $round of $ROUNDS: $side, $what" >&2
        "$measure" "$side" "$round" "$what" "$@"
    done
done
"$BINARIES/compare" between --a-name "$A" --b-name "$B" --a "$OUT"/a-*.json --b "$OUT"/b-*.json --json "$OUT/between.json"
