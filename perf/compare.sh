#!/usr/bin/env bash
# Builds the brokers and the comparison with all optimizations, and runs it: Embarcadero against the limits of this
# machine. All arguments go to the comparison; see --help. Figures to quote: a quiet machine and --total for 10 s a run.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/release

(cd "$ROOT" && cargo build --release -p embarcadero -p embarcadero-perf)
exec "$BINARIES/compare" "$@"
