"""What is rendered is valid for Kubernetes, allowed into a cluster, consistent in itself and accepted by the program."""

import copy
import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

import policy
import rendering
from rendering import K8S, REPOSITORY, SERVICE, container, of_kind, render, render_with, service, setting, variants

# Its own kinds are validated by kubernetes-validate, those of others by the small schemas in k8s/schemas.
SCHEMAS = {path.stem: json.loads(path.read_text()) for path in (K8S / "schemas").glob("*.json")}
SECRETS = "/var/run/secrets/daisi-cdc-consumer"


def newest_versions(count):
    """The newest minor versions that the validator has schemas for, as it writes them."""
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
    found = {tuple(map(int, re.findall(r"[0-9]+", path.name)[:2])) for path in folder.glob("v*-local-strict")}
    return [f"{major}.{minor}" for major, minor in sorted(found)[-count:]]


def problems_with(thing, versions):
    """What the schemas have against an object."""
    schema = SCHEMAS.get(thing["kind"].lower())
    found = []
    try:
        if schema:
            jsonschema.Draft202012Validator(schema).validate(thing)
            return []
        for version in versions:
            kubernetes_validate.validate(thing, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
        found.append(str(error).splitlines()[0])
    return found


@unittest.skipUnless(rendering.kubectl(), "kubectl is missing: manifests are NOT rendered, NOT validated")
class Manifests(unittest.TestCase):
    def test_every_object_fits_its_schema(self):
        versions = newest_versions(3)
        print(f"\nkubectl: {rendering.kubectl()}; Kubernetes {', '.join(versions)}; {len(variants())} renderings")
        self.assertEqual(len(versions), 3)
        seen = set()
        for name, objects in variants().items():
            for thing in objects:
                text = json.dumps(thing, sort_keys=True)
                if text not in seen:
                    seen.add(text)
                    with self.subTest(name, kind=thing["kind"]):
                        self.assertEqual(problems_with(thing, versions), [])

    def test_the_schemas_refuse_what_is_wrong(self):
        versions = newest_versions(3)
        objects = render_with("overlays/production", "keda") + render_with("base", "hpa", "service-monitor")
        kinds = {thing["kind"] for thing in objects}
        self.assertEqual(kinds & {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"}, {"PodMonitor", "ServiceMonitor", "PrometheusRule", "ScaledObject"})
        for thing in objects:
            field = "data" if "data" in thing else "spec" if "spec" in thing else "metadata"
            wrong = copy.deepcopy(thing)
            wrong[field]["no such field" if field != "data" else "name"] = {"a": 1}
            with self.subTest(kind=thing["kind"]):
                self.assertEqual(problems_with(thing, versions), [])
                self.assertNotEqual(problems_with(wrong, versions), [])

    def test_every_workload_keeps_the_policy(self):
        for name, objects in variants().items():
            for thing in objects:
                # Whatever brings pods along, and a bare Pod.
                if policy.look(thing, "spec.template.spec") or thing["kind"] in ("Pod", "CronJob"):
                    with self.subTest(name, kind=thing["kind"], workload=thing["metadata"]["name"]):
                        self.assertIn(thing["kind"], ("Deployment", "CronJob"), "the policy knows no other")
                        self.assertEqual(policy.workload(thing), [])
            with self.subTest(name):
                self.assertEqual(policy.deployed(objects), [])
                self.assertTrue(of_kind(objects, "NetworkPolicy", SERVICE))
                for network in of_kind(objects, "NetworkPolicy"):
                    self.assertEqual(policy.network(network, pinned="production" in name), [])

    def test_production_talks_to_the_namespaces_of_its_servers_alone(self):
        objects = render("overlays/production")
        (network,) = of_kind(objects, "NetworkPolicy", SERVICE)
        of = {}
        for rule in network["spec"]["ingress"] + network["spec"]["egress"]:
            (other,) = rule.get("from") or rule["to"]
            of[rule["ports"][0]["port"]] = other["namespaceSelector"]["matchLabels"][policy.NAMESPACE]
        hosts = {port: re.search(r"//[a-z]+\.([a-z]+)\.svc:", setting(objects, url))[1] for port, url in ((4222, "nats.url"), (6379, "dedup.url"))}
        (scaled,) = of_kind(render_with("overlays/production", "keda"), "ScaledObject")
        prometheus = {re.search(r"//[a-z-]+\.([a-z]+)\.svc:", trigger["metadata"]["serverAddress"])[1] for trigger in scaled["spec"]["triggers"]}
        self.assertEqual(of, {"http": prometheus.pop(), 53: "kube-system", **hosts})
        self.assertFalse(prometheus)

    def test_the_policy_for_the_network_finds_the_servers_of_the_overlay(self):
        objects = render("overlays/dev")
        (network,) = of_kind(objects, "NetworkPolicy", SERVICE)
        for name, port in (("nats", 4222), ("redis", 6379)):
            (server,) = of_kind(objects, "Deployment", name)
            labels = server["spec"]["template"]["metadata"]["labels"]
            (rule,) = [rule for rule in network["spec"]["egress"] if rule["ports"] == [{"port": port, "protocol": "TCP"}]]
            self.assertLessEqual(rule["to"][0]["podSelector"]["matchLabels"].items(), labels.items())
            self.assertIn(port, [port["containerPort"] for port in container(server)["ports"]])

    def test_what_excludes_each_other_does_not_render(self):
        scaling, scraping = "/spec/(replicas|strategy)", "/metadata/annotations/daisi-cdc-consumer~1scraped-by"
        pairs = (("hpa", "keda", scaling), ("recreate", "hpa", scaling), ("recreate", "keda", scaling), ("pod-monitor", "service-monitor", scraping))
        for first, second, why in pairs:
            for components in ((first, second), (second, first)):
                with self.subTest(components), self.assertRaisesRegex(AssertionError, why):
                    render_with("base", *components)
        # Production has a pod-monitor.
        with self.assertRaisesRegex(AssertionError, scraping):
            render_with("overlays/production", "service-monitor")

    def test_an_image_of_production_is_named_with_its_version(self):
        image = container(service(render("overlays/production")))["image"]
        self.assertRegex(image, r":[0-9]+\.[0-9]+\.[0-9]+$")
        version = re.search(r'^version = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.M).group(1)
        self.assertTrue(image.endswith(f":{version}"), f"{image}, while Cargo.toml says {version}")

    def test_the_program_accepts_every_configuration(self):
        for name, objects in variants().items():
            with self.subTest(name):
                code, said = self.check(objects)
                self.assertEqual(code, 0, said)
                self.assertNotIn("warning", said)

    def test_the_program_refuses_a_setting_that_it_does_not_know(self):
        for wrong in ("nats:\n  urls: nats://nats:4222\n", "shutdown:\n  grace: long\n"):
            objects = render("overlays/production")
            for config_map in of_kind(objects, "ConfigMap"):
                config_map["data"]["config.yaml"] = wrong
            self.assertEqual(self.check(objects)[0], 78)

    def check(self, objects):
        """What `check --offline` says about a pod's ConfigMap and environment, with Secrets that hold something."""
        binary = os.environ.get("CDC_BINARY", REPOSITORY / "target/debug/daisi-cdc-consumer")
        with tempfile.TemporaryDirectory() as name:
            text = rendering.config_text(objects).replace(SECRETS, name)
            for secret in re.findall(rf"{re.escape(name)}/(\S+)", text):
                (Path(name) / secret).write_text("content\n")
            (Path(name) / "config.yaml").write_text(text)
            inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAISI_CDC_")}
            given = {entry["name"]: entry["value"] for entry in container(service(objects)).get("env", [])}
            arguments = [binary, "check", "--offline", "--config", f"{name}/config.yaml"]
            done = subprocess.run(arguments, env=inherited | given, capture_output=True, text=True, timeout=60)
            return done.returncode, done.stdout + done.stderr

    def test_what_is_named_is_there(self):
        for name, objects in variants().items():
            with self.subTest(name):
                deployment = service(objects)
                labels = deployment["spec"]["template"]["metadata"]["labels"]
                pod = deployment["spec"]["template"]["spec"]
                self.assertTrue(of_kind(objects, "ServiceAccount", pod["serviceAccountName"]))
                self.assertEqual(container(deployment)["args"][:2], ["run", "--config"])
                mounts = {mount["name"]: mount["mountPath"] for mount in container(deployment)["volumeMounts"]}
                self.assertEqual(mounts["config"] + "/config.yaml", container(deployment)["args"][2])
                self.assertEqual(sorted(mounts), sorted(volume["name"] for volume in pod["volumes"]))
                selectors = [("Service", "selector"), ("PodDisruptionBudget", "selector.matchLabels"), ("NetworkPolicy", "podSelector.matchLabels"), ("PodMonitor", "selector.matchLabels")]
                for kind, path in selectors:
                    for thing in of_kind(objects, kind, SERVICE):
                        selector = policy.look(thing["spec"], path)
                        self.assertTrue(selector and selector.items() <= labels.items(), f"{kind}: {selector}")
                for monitor in of_kind(objects, "ServiceMonitor"):
                    (found,) = of_kind(objects, "Service", SERVICE)
                    self.assertLessEqual(monitor["spec"]["selector"]["matchLabels"].items(), found["metadata"]["labels"].items())
                for kind in ("HorizontalPodAutoscaler", "ScaledObject"):
                    for scaler in of_kind(objects, kind):
                        self.assertEqual(scaler["spec"]["scaleTargetRef"]["name"], deployment["metadata"]["name"])
                namespaces = {thing["metadata"].get("namespace") for thing in objects if thing["kind"] != "Namespace"}
                self.assertEqual(len(namespaces), 1, namespaces)

    def test_the_files_named_by_settings_are_mounted(self):
        objects = render("overlays/production")
        files = [value for value in re.findall(r"_file: (\S+)", rendering.config_text(objects))]
        self.assertTrue(files)
        mounts = {mount["mountPath"]: mount for mount in container(service(objects))["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in service(objects)["spec"]["template"]["spec"]["volumes"]}
        for file in files:
            mount = mounts[os.path.dirname(file)]
            # As a whole: what is mounted by subPath is not renewed when the Secret is.
            self.assertEqual((mount["readOnly"], mount.get("subPath")), (True, None))
            self.assertEqual(volumes[mount["name"]]["secret"], {"secretName": SERVICE, "defaultMode": 0o440})
        for text in (rendering.config_text(objects), yaml.safe_dump(container(service(objects)).get("env", []))):
            self.assertNotRegex(text, r"(?m)(password|token|seed): [^n]")

    def test_one_source_of_rules(self):
        (rule,) = of_kind(render_with("base", "alerts"), "PrometheusRule")
        self.assertEqual(rule["spec"], yaml.safe_load((K8S / "components/alerts/rules.yaml").read_text()))

    def test_the_dashboard_is_the_one_file(self):
        maps = of_kind(render_with("base", "dashboard"), "ConfigMap")
        (dashboard,) = [m for m in maps if m["metadata"]["labels"].get("grafana_dashboard") == "1"]
        (text,) = dashboard["data"].values()
        self.assertEqual(text, (K8S / "components/dashboard/dashboard.json").read_text())

    def test_everything_said_of_a_release_is_rendered(self):
        # What the README lists of production is there.
        kinds = {thing["kind"] for thing in render("overlays/production")}
        for kind in ("Deployment", "ConfigMap", "Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Namespace"):
            self.assertIn(kind, kinds)


def fields(node, path):
    """The paths of everything within a mapping, itself included."""
    yield path
    for name, value in node.items() if isinstance(node, dict) else ():
        yield from fields(value, f"{path}.{name}")


@unittest.skipUnless(rendering.kubectl(), "kubectl is missing: the policy is NOT tried")
class ThePolicyNotices(unittest.TestCase):
    """Each of these changes must be found: a path of the pod or the container, and its new value (GONE: removed)."""

    GONE = object()
    POD = [
        ("automountServiceAccountToken", GONE), ("automountServiceAccountToken", True),
        ("serviceAccountName", GONE), ("serviceAccountName", "default"),
        ("securityContext", GONE), ("securityContext.runAsNonRoot", GONE), ("securityContext.runAsNonRoot", False),
        ("securityContext.runAsUser", GONE), ("securityContext.runAsUser", 0), ("securityContext.runAsGroup", GONE),
        ("securityContext.seccompProfile", GONE), ("securityContext.seccompProfile.type", "Unconfined"),
        ("hostNetwork", True), ("hostPID", True), ("hostIPC", True),
        ("volumes.0", {"name": "secrets", "hostPath": {"path": "/"}}),
        ("initContainers", [{"name": "i"}]),
        ("terminationGracePeriodSeconds", GONE), ("terminationGracePeriodSeconds", 37),
        ("topologySpreadConstraints", GONE),
    ]
    CONTAINER = [
        ("securityContext", GONE), ("securityContext.allowPrivilegeEscalation", GONE), ("securityContext.allowPrivilegeEscalation", True),
        ("securityContext.privileged", True), ("securityContext.readOnlyRootFilesystem", GONE), ("securityContext.readOnlyRootFilesystem", False),
        ("securityContext.capabilities", GONE), ("securityContext.capabilities.drop", ["NET_RAW"]), ("securityContext.capabilities.add", ["NET_ADMIN"]),
        ("securityContext.runAsUser", 0), ("securityContext.runAsNonRoot", False), ("securityContext.seccompProfile", {"type": "Unconfined"}),
        ("resources", GONE), ("resources.requests", GONE), ("resources.limits", GONE),
        ("resources.requests.cpu", GONE), ("resources.requests.memory", GONE), ("resources.limits.cpu", GONE), ("resources.limits.memory", GONE),
        ("startupProbe", GONE), ("livenessProbe", GONE), ("readinessProbe", GONE),
        ("lifecycle", GONE), ("lifecycle.preStop.sleep.seconds", 30),
    ]
    SPEC = [("strategy", GONE), ("strategy.rollingUpdate.maxUnavailable", 1), ("strategy.rollingUpdate.maxSurge", 0)]

    def test_every_field_that_is_taken_away_or_weakened(self):
        objects = render("overlays/production")
        self.assertEqual(policy.workload(service(objects)) + policy.deployed(objects), [])
        places = [(self.POD, lambda d: d["spec"]["template"]["spec"]), (self.CONTAINER, container), (self.SPEC, lambda d: d["spec"])]
        tried = 0
        for mutations, place in places:
            for path, value in mutations:
                changed = copy.deepcopy(objects)
                self.change(place(service(changed)), path, value)
                tried += 1
                with self.subTest(path, value="removed" if value is self.GONE else value):
                    self.assertNotEqual(policy.workload(service(changed)) + policy.deployed(changed), [])
        print(f"\n{tried} weakened Deployments refused")

    def test_every_field_of_rights_bounds_and_probes_is_needed(self):
        objects = render("overlays/production")
        places = [("securityContext", lambda d: d["spec"]["template"]["spec"])]
        places += [(part, container) for part in ("securityContext", "resources", "lifecycle", "startupProbe", "livenessProbe", "readinessProbe")]
        tried = 0
        for part, place in places:
            for path in fields(place(service(objects))[part], part):
                changed = copy.deepcopy(objects)
                self.change(place(service(changed)), path, self.GONE)
                tried += 1
                with self.subTest(path):
                    self.assertNotEqual(policy.workload(service(changed)) + policy.deployed(changed), [])
        self.assertGreater(tried, 30)
        print(f"\n{tried} Deployments with a field less refused")

    def test_a_longer_grace_without_a_longer_termination(self):
        objects = render("overlays/production")
        for config_map in of_kind(objects, "ConfigMap"):
            config_map["data"]["config.yaml"] = "shutdown:\n  grace: 60s\n"
        self.assertTrue(any("terminationGracePeriodSeconds" in wrong for wrong in policy.deployed(objects)))

    def test_a_disruption_budget_that_blocks_drains_or_is_for_nobody(self):
        for change in (
            lambda spec: (spec.pop("maxUnavailable"), spec.update(minAvailable=1)),
            lambda spec: spec.update(maxUnavailable=0),
            lambda spec: spec.update(selector={}),
        ):
            objects = render("overlays/production")
            (budget,) = of_kind(objects, "PodDisruptionBudget")
            change(budget["spec"])
            self.assertTrue(any("PodDisruptionBudget" in wrong for wrong in policy.deployed(objects)), budget["spec"])

    def test_a_network_policy_that_lets_more_through(self):
        (good,) = of_kind(render("base"), "NetworkPolicy")
        for change in (
            lambda spec: spec.update(policyTypes=["Ingress"]),
            lambda spec: spec["ingress"][0].pop("ports"),
            lambda spec: spec["ingress"][0].pop("from"),
            lambda spec: spec["egress"].append({}),
            lambda spec: spec["egress"][0].pop("to"),
            lambda spec: spec["egress"][1]["ports"].append({"protocol": "TCP", "port": 443}),
            lambda spec: spec["egress"][1]["to"].append({"ipBlock": {"cidr": "0.0.0.0/0"}}),
            lambda spec: spec["egress"][1].update(to=[{"namespaceSelector": {}}]),
            lambda spec: spec["egress"][1]["to"][0].update(podSelector={}),
            lambda spec: spec["ingress"][0]["from"][0].update(podSelector={}),
            # What kustomize does to every selector with `includeSelectors`.
            lambda spec: spec["egress"][2]["to"][0]["podSelector"]["matchLabels"].update(policy.LABELS),
            lambda spec: spec["ingress"][0]["from"][0]["podSelector"]["matchLabels"].update(policy.LABELS),
            # Less than the service needs.
            lambda spec: spec["egress"].pop(),
            lambda spec: spec.update(podSelector={}),
        ):
            weakened = copy.deepcopy(good)
            change(weakened["spec"])
            self.assertNotEqual(policy.network(weakened), [], weakened["spec"])

    def test_a_network_policy_of_production_for_pods_of_any_namespace(self):
        (good,) = of_kind(render("overlays/production"), "NetworkPolicy", SERVICE)
        self.assertEqual(policy.network(good, pinned=True), [])
        for selector in ({}, {"matchLabels": {}}, {"matchLabels": {"team": "a"}}, {"matchExpressions": [{"key": policy.NAMESPACE, "operator": "Exists"}]}):
            for side, key in (("ingress", "from"), ("egress", "to")):
                for number in range(len(good["spec"][side])):
                    weakened = copy.deepcopy(good)
                    weakened["spec"][side][number][key][0]["namespaceSelector"] = selector
                    self.assertNotEqual(policy.network(weakened, pinned=True), [], weakened["spec"])

    def change(self, node, path, value):
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        for parent in parents:
            node = node[parent]
        if value is self.GONE:
            del node[last]
        else:
            node[last] = value
