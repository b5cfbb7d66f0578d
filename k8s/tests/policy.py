"""What a workload must say to be let into a cluster; every function returns what is wrong, in words."""

from rendering import container, of_kind, seconds, service, setting

# Closing connections and the HTTP endpoint once shutdown.grace is over: at most 2 s each.
CLOSING = 10


def look(node, path):
    """What is found at a dotted path; None if it is not there."""
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


POD = {
    "automountServiceAccountToken": lambda v: v is False,
    "securityContext.runAsNonRoot": lambda v: v is True,
    "securityContext.runAsUser": lambda v: isinstance(v, int) and v > 0,
    "securityContext.runAsGroup": lambda v: isinstance(v, int) and v > 0,
    "securityContext.seccompProfile.type": lambda v: v == "RuntimeDefault",
    "hostNetwork": lambda v: not v,
    "hostPID": lambda v: not v,
    "hostIPC": lambda v: not v,
}

CONTAINER = {
    "securityContext.allowPrivilegeEscalation": lambda v: v is False,
    "securityContext.privileged": lambda v: v is False,
    "securityContext.readOnlyRootFilesystem": lambda v: v is True,
    "securityContext.capabilities.drop": lambda v: v == ["ALL"],
    "securityContext.capabilities.add": lambda v: not v,
    "securityContext.runAsUser": lambda v: v is None or v > 0,
    "securityContext.runAsNonRoot": lambda v: v is not False,
    "securityContext.seccompProfile": lambda v: v is None,
    "resources.requests.cpu": bool,
    "resources.requests.memory": bool,
    "resources.limits.cpu": bool,
    "resources.limits.memory": bool,
    "startupProbe": lambda v: asks(v),
    "livenessProbe": lambda v: asks(v),
    "readinessProbe": lambda v: asks(v),
    "image": bool,
}

# What the service's own probes ask. Their times are written down, since the defaults of Kubernetes are others.
PROBES = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
TIMES = ("periodSeconds", "timeoutSeconds", "failureThreshold")

LABELS = {"app.kubernetes.io/name": "daisi-cdc-consumer"}

NAMESPACE = "kubernetes.io/metadata.name"

LETTERS = {"app.kubernetes.io/name": "daisi-cdc-dead-letters"}
DNS_AND_NATS = {
    ("UDP", 53): {"k8s-app": "kube-dns"},
    ("TCP", 53): {"k8s-app": "kube-dns"},
    ("TCP", 4222): {"app.kubernetes.io/name": "nats"},
}

# Who may be on the other side of which port, for the pods with which labels.
PEERS = {
    "daisi-cdc-consumer": (LABELS, {
        "ingress": {("TCP", "http"): {"app.kubernetes.io/name": "prometheus"}},
        "egress": DNS_AND_NATS | {("TCP", 6379): {"app.kubernetes.io/name": "redis"}},
    }),
    "daisi-cdc-dead-letters": (LETTERS, {"ingress": {}, "egress": DNS_AND_NATS}),
}


def asks(probe):
    """Whether a probe says whom it asks."""
    handlers = [probe[name] for name in ("httpGet", "tcpSocket", "exec", "grpc") if name in probe] if probe else []
    return len(handlers) == 1 and bool(handlers[0])


def pods(thing):
    """The pods that a Deployment or a CronJob makes."""
    return (thing["spec"]["jobTemplate"] if thing["kind"] == "CronJob" else thing)["spec"]["template"]


def workload(thing):
    """Rights, bounds and, where something is to be up, probes of any workload."""
    pod = pods(thing)["spec"]
    needed = CONTAINER if thing["kind"] == "Deployment" else {path: good for path, good in CONTAINER.items() if path not in PROBES}
    wrong = [f"{path}: {look(pod, path)}" for path, good in POD.items() if not good(look(pod, path))]
    wrong += [f"volume {v['name']}: hostPath" for v in pod.get("volumes", []) if "hostPath" in v]
    wrong += [f"{kind} are not looked at" for kind in ("initContainers", "ephemeralContainers") if pod.get(kind)]
    for volume in pod.get("volumes", []):
        if "secret" in volume and not look(pod, "securityContext.fsGroup"):
            wrong.append(f"securityContext.fsGroup: missing, so nobody but root reads volume {volume['name']}")
    for one in pod["containers"]:
        wrong += [f"{path}: {look(one, path)}" for path, good in needed.items() if not good(look(one, path))]
    return wrong


def deployed(objects):
    """What the service needs beyond that."""
    deployment = service(objects)
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    wrong = []
    if pod.get("serviceAccountName") in (None, "default"):
        wrong.append("serviceAccountName: an account of its own is missing")
    if look(spec, "selector.matchLabels") != LABELS:
        wrong.append(f"selector: {look(spec, 'selector.matchLabels')}")
    for probe, path in PROBES.items():
        given = container(deployment).get(probe) or {}
        if (look(given, "httpGet.path"), look(given, "httpGet.port")) != (path, "http"):
            wrong.append(f"{probe}: asks {given.get('httpGet')}")
        wrong += [f"{probe}.{time}: missing" for time in TIMES if not given.get(time)]
    pause = look(container(deployment), "lifecycle.preStop.sleep.seconds")
    if not pause:
        wrong.append("lifecycle.preStop.sleep.seconds: missing")
    needed = (pause or 0) + seconds(setting(objects, "shutdown.grace")) + CLOSING
    given = pod.get("terminationGracePeriodSeconds", 30)
    if given < needed:
        wrong.append(f"terminationGracePeriodSeconds: {given} is below preStop + shutdown.grace + {CLOSING} = {needed:g}")
    rolling = spec.get("strategy", {})
    gapless = look(rolling, "rollingUpdate.maxUnavailable") == 0 and look(rolling, "rollingUpdate.maxSurge")
    if rolling.get("type") != "Recreate" and not gapless:
        wrong.append("strategy: a rollout would leave a gap")
    spread = pod.get("topologySpreadConstraints", [])
    # Without a selector a constraint counts no pods, and spreads none.
    keys = {c["topologyKey"] for c in spread if look(c, "labelSelector.matchLabels") == LABELS}
    if keys != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
        wrong.append(f"topologySpreadConstraints: {sorted(keys)}")
    budgets = [budget["spec"] for budget in of_kind(objects, "PodDisruptionBudget")]
    # With one replica a budget that keeps one would hold every drain up for ever.
    if [(budget.get("maxUnavailable"), look(budget, "selector.matchLabels")) for budget in budgets] != [(1, LABELS)]:
        wrong.append(f"PodDisruptionBudget: {budgets}")
    return wrong


def network(policy, pinned=False):
    """Nothing in or out but what these pods need, and each of it: selectors as they are rendered; where
    namespaces must be pinned, from and to a named one alone."""
    spec = policy["spec"]
    wrong = []
    labels, known = PEERS[policy["metadata"]["name"]]
    if look(spec, "podSelector.matchLabels") != labels:
        wrong.append(f"podSelector: {spec.get('podSelector')}")
    if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
        wrong.append("policyTypes: both directions must be named")
    for side, key in (("ingress", "from"), ("egress", "to")):
        open_to = {}
        for rule in spec.get(side, []):
            # No ports are all ports, and no peers everybody.
            for port in rule.get("ports") or [{}]:
                place = port.get("protocol"), port.get("port")
                open_to[place] = open_to.get(place, []) + (rule.get(key) or [None])
        for place in sorted(open_to.keys() | known[side].keys(), key=str):
            peers, wanted = open_to.get(place, []), known[side].get(place)
            if len(peers) != 1 or not peer(peers[0], wanted, pinned):
                wrong.append(f"{side} {place}: {peers} and not pods {wanted}{' of one namespace' if pinned else ''}")
    return wrong


def peer(given, labels, pinned):
    """Whether it stands for the pods with just these labels, in whichever namespaces it names, or in one known by its name."""
    known = bool(given) and set(given) == {"namespaceSelector", "podSelector"}
    if not (labels and known and given["podSelector"] == {"matchLabels": labels}):
        return False
    named = given["namespaceSelector"].get("matchLabels") or {}
    return not pinned or (set(given["namespaceSelector"]) == {"matchLabels"} and bool(named.get(NAMESPACE)))
