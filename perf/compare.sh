#!/usr/bin/env bash
# Builds with all optimizations, and compares.
#
#   perf/compare.sh [ARGUMENTS]...        Embarcadero against the limits of this machine; see --help
#   perf/compare.sh A B [ARGUMENTS]...    two commits, or two configurations, with each other: perf/between.sh
#
# Figures to quote: a quiet machine and --total for 10 s a run.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release

# A command of the comparison has options behind it, and no second word.
if (($# >= 2)) && [[ $1 != -* && $2 != -* ]]; then
    exec "$ROOT/perf/between.sh" "$@"
fi
(cd "$ROOT" && cargo build --release -p embarcadero -p embarcadero-perf)
exec "$BINARIES/compare" "$@"
