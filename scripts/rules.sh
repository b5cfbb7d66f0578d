#!/usr/bin/env bash
# The alert rules have one source, k8s/components/alerts/rules.yaml. This makes the PrometheusRule of it and checks both.
#   scripts/rules.sh                    writes prometheus-rule.yaml
#   scripts/rules.sh RUNBOOK            first makes every runbook link lead to RUNBOOK#<alert>
#   scripts/rules.sh --check            fails if prometheus-rule.yaml is not what would be written; promtool where it is installed,
#                                       wherever the links lead
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../k8s/components/alerts"

# Where the links lead as they are shipped, and in rules.test.yaml.
readonly PAGE=docs/runbook.md

say() { printf 'rules: %s\n' "$*"; }

prometheus_rule() {
    local page
    page=$(sed -n 's/^ *runbook_url: \(.*\)#.*/\1/p' rules.yaml | sort -u)
    cat <<YAML
# Made from rules.yaml by scripts/rules.sh: edit that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: daisi-cdc-consumer
  labels:
    app.kubernetes.io/name: daisi-cdc-consumer
  annotations:
    daisi-cdc-consumer/runbook: ${page:?rules.yaml has no links}
spec:
YAML
    sed -n '/^groups:/,$ { s/^./  &/; p }' rules.yaml
}

case "${1-}" in
--check)
    prometheus_rule | diff -u prometheus-rule.yaml - || {
        say "prometheus-rule.yaml is not made from rules.yaml; remedy: make rules" >&2
        exit 1
    }
    if command -v promtool >/dev/null 2>&1; then
        work=$(mktemp -d)
        trap 'rm -rf "$work"' EXIT
        sed "s|runbook_url: .*#|runbook_url: $PAGE#|" rules.yaml >"$work/rules.yaml"
        cp rules.test.yaml "$work"
        promtool check rules rules.yaml
        promtool test rules "$work/rules.test.yaml"
    else
        say "promtool is not installed (Debian: prometheus): rules NOT checked, their tests SKIPPED"
    fi
    exit
    ;;
?*) sed -i "s|runbook_url: .*#|runbook_url: $1#|" rules.yaml ;;
esac
prometheus_rule >prometheus-rule.yaml
say "wrote prometheus-rule.yaml"
