#!/usr/bin/env bash
# Makes docs/performance/*.svg from the figures in docs/performance/*.csv, with matplotlib from PyPI in .tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VENV=.tools/venv
[ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
"$VENV/bin/python" -c 'import matplotlib' 2>/dev/null \
    || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check matplotlib
"$VENV/bin/python" scripts/plots.py docs/performance
