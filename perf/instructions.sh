#!/bin/sh
# Instructions that the sequencer takes for a batch: they repeat where nanoseconds do not. By callgrind, of two runs of different length, so
# that what is not by the batch falls away. Installs valgrind if it is missing and this is root.
#
#   perf/instructions.sh ["order 5 in order, 8 lanes, 1000 " ...]      # cases of `compare sequencer`, by a part of their names
set -eu
cd "$(dirname "$0")/.."
if ! command -v valgrind >/dev/null; then
	[ "$(id -u)" = 0 ] || { echo "perf/instructions.sh: valgrind is missing: install the package valgrind" >&2; exit 1; }
	apt-get install --yes --quiet valgrind >/dev/null
fi
cargo build --release --quiet --package embarcadero-perf
[ $# -gt 0 ] || set -- "order 2 in order, 8 lanes, 1000 " "order 5 in order, 8 lanes, 1000 " "order 5 half shuffled, 8 lanes, 1000 " \
	"order 5 in order, 64 lanes, 1000 " "order 5 in order, 8 lanes, 100000 "
BATCHES=65536

# Of a run of so many batches, and a cold one as long.
count() {
	found=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='*ActiveSequencer*pass*' \
		"${CARGO_TARGET_DIR:-target}/release/compare" sequencer --runs 1 --batches "$2" --only "$1" 2>&1) || { echo "$found" >&2; exit 1; }
	echo "$found" | sed -n 's/.*Collected : //p'
}

for name; do
	once=$(count "$name" $BATCHES)
	twice=$(count "$name" $((2 * BATCHES)))
	echo "$name: $(((twice - once) / (2 * BATCHES))) instructions a batch"
done
