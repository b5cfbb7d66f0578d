"""What a workload must say to be let into a cluster; every function returns what is wrong, in words."""

from rendering import container, seconds, service, setting

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
    "securityContext.privileged": lambda v: not v,
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
    "startupProbe": bool,
    "livenessProbe": bool,
    "readinessProbe": bool,
    "image": bool,
}


def workload(deployment):
    """Rights, bounds and probes of any workload."""
    pod = deployment["spec"]["template"]["spec"]
    wrong = [f"{path}: {look(pod, path)}" for path, good in POD.items() if not good(look(pod, path))]
    wrong += [f"volume {v['name']}: hostPath" for v in pod.get("volumes", []) if "hostPath" in v]
    wrong += [f"{kind} are not looked at" for kind in ("initContainers", "ephemeralContainers") if pod.get(kind)]
    for one in pod["containers"]:
        wrong += [f"{path}: {look(one, path)}" for path, good in CONTAINER.items() if not good(look(one, path))]
    return wrong


def deployed(objects):
    """What the service needs beyond that."""
    deployment = service(objects)
    spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
    wrong = []
    if pod.get("serviceAccountName") in (None, "default"):
        wrong.append("serviceAccountName: an account of its own is missing")
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
    keys = {c["topologyKey"] for c in pod.get("topologySpreadConstraints", [])}
    if keys != {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}:
        wrong.append(f"topologySpreadConstraints: {sorted(keys)}")
    return wrong


def network(policy):
    """Nothing in but scraping, nothing out but DNS, NATS and Redis."""
    spec = policy["spec"]
    ports = lambda rules: sorted({(p["protocol"], p["port"]) for rule in rules for p in rule.get("ports", [{"protocol": "any", "port": 0}])}, key=str)
    wrong = []
    if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
        wrong.append("policyTypes: both directions must be named")
    if ports(spec.get("ingress", [])) != [("TCP", "http")]:
        wrong.append(f"ingress: {ports(spec.get('ingress', []))}")
    if ports(spec.get("egress", [])) != [("TCP", 4222), ("TCP", 53), ("TCP", 6379), ("UDP", 53)]:
        wrong.append(f"egress: {ports(spec.get('egress', []))}")
    for side, key in (("ingress", "from"), ("egress", "to")):
        if any(not rule.get(key) for rule in spec.get(side, [])):
            wrong.append(f"{side}: a rule without {key} is for everybody")
    return wrong
