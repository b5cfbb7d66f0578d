#!/usr/bin/env bash
# Renders everything in k8s/ and holds it against the schemas of Kubernetes, a policy and the program itself. No cluster.
# Needs what `make setup` puts into .tools, and a build (CDC_BINARY names another than target/debug's).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PYTHON="$PWD/.tools/venv/bin/python"

"$PYTHON" -c 'import kubernetes_validate' 2>/dev/null || {
    echo "k8s: SKIPPED, kubernetes-validate is missing; remedy: make setup, with network"
    exit
}
[ -x .tools/venv/bin/kubectl ] || command -v kubectl >/dev/null 2>&1 || {
    echo "k8s: SKIPPED, kubectl is missing: nothing rendered, nothing validated; remedy: make setup, with network"
    exit
}
cd k8s/tests
exec "$PYTHON" -B -m unittest
