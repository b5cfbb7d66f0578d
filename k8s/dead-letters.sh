#!/usr/bin/env bash
# Runs `daisi-cdc-consumer dead-letters` in the cluster and shows what it says; needs components/dead-letters.
#   k8s/dead-letters.sh list --reason refused
#   NAMESPACE=daisi-cdc-dev k8s/dead-letters.sh replay 17 --dry-run
# The Job is of this run alone and is removed a day after it has ended.
set -euo pipefail

readonly NAMESPACE=${NAMESPACE:-daisi-cdc} JOB=dead-letters-$(date +%s)-$$

[ $# -gt 0 ] || { sed -n '2,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 64; }
# As JSON: nothing that `dead-letters` takes needs a quote or a backslash.
arguments=
for argument in dead-letters "$@" --config /etc/daisi-cdc-consumer/config.yaml; do
    case $argument in *[\"\\]*) echo "dead-letters.sh: neither \" nor \\ may stand in $argument" >&2; exit 64 ;; esac
    arguments+=${arguments:+,}\"$argument\"
done

kubectl -n "$NAMESPACE" create job "$JOB" --from=cronjob/daisi-cdc-dead-letters --dry-run=client -o json |
    kubectl patch --local -f - --type json -o json -p '[{"op":"replace","path":"/spec/template/spec/containers/0/args","value":['"$arguments"']}]' |
    kubectl -n "$NAMESPACE" create -f - >&2
# There is no log to follow before the pod has started.
for _ in {1..60}; do
    kubectl -n "$NAMESPACE" logs -f "job/$JOB" 2>/dev/null && exit
    sleep 1
done
kubectl -n "$NAMESPACE" describe "job/$JOB" >&2
exit 69
