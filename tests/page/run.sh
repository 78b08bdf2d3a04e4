#!/usr/bin/env bash
# `make test-page`: the status page in a browser, under load (tests/system/page.rs). As root it installs the browser if there is none.
# Exit code: 0 passed, 77 skipped because no browser can be had.
set -euo pipefail
cd "$(dirname "$0")/../.."

browser() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable headless_shell; do
        command -v "$name" && return
    done
    ls -d ~/.cache/ms-playwright/*/chrome-linux*/{chrome,headless_shell} 2>/dev/null | head -1 | grep .
}

skip() {
    echo "SKIPPED, not passed: $*" >&2
    exit 77
}

if ! browser >/dev/null; then
    command -v apt-get >/dev/null || skip "no Chromium on this machine, and no apt-get to install it: install one by the name of chromium"
    [ "$(id -u)" = 0 ] || skip "the package chromium is missing, and only root can install it"
    { apt-get update -qq || true; } >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >&2 || skip "cannot install chromium"
fi
echo "$("$(browser)" --version 2>/dev/null)"
cargo test --test system page:: -- --nocapture
echo "pictures: ${CARGO_TARGET_DIR:-target}/tmp/page"
