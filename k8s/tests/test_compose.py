"""compose.yaml and the Dockerfile agree with the rest of the repository. No engine is needed."""

import os
import re
import subprocess
import unittest

import yaml

from rendering import K8S, REPOSITORY

COMPOSE = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()


class Compose(unittest.TestCase):
    def test_everything_around_the_service_is_there_in_a_named_version(self):
        self.assertEqual(set(COMPOSE), {"daisi-cdc-consumer", "nats", "redis", "prometheus", "grafana"})
        for name, service in COMPOSE.items():
            if "build" not in service:
                self.assertRegex(service["image"], r":v?[0-9]", name)

    def test_nothing_listens_beyond_this_machine(self):
        for name, service in COMPOSE.items():
            for port in service.get("ports", []):
                self.assertRegex(port, r"^127\.0\.0\.1:", name)

    def test_every_mounted_file_is_there(self):
        for name, service in COMPOSE.items():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    self.assertTrue((REPOSITORY / source).is_file(), f"{name}: {source}")

    def test_rules_and_dashboard_are_those_of_k8s(self):
        mounted = lambda name: [volume.split(":")[0] for volume in COMPOSE[name]["volumes"]]
        self.assertIn("./k8s/components/alerts/rules.yaml", mounted("prometheus"))
        self.assertIn("./k8s/components/dashboard/dashboard.json", mounted("grafana"))

    def test_the_program_accepts_its_settings(self):
        binary = os.environ.get("CDC_BINARY", REPOSITORY / "target/debug/daisi-cdc-consumer")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAISI_CDC_")}
        given = COMPOSE["daisi-cdc-consumer"]["environment"]
        done = subprocess.run([binary, "check", "--offline"], env=inherited | given, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_prometheus_scrapes_the_port_of_the_image(self):
        config = yaml.safe_load((REPOSITORY / "compose/prometheus.yaml").read_text())
        (port,) = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.M)
        self.assertEqual(config["scrape_configs"][0]["static_configs"][0]["targets"], [f"daisi-cdc-consumer:{port}"])
        default = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["http"]["listen"]
        self.assertTrue(default.endswith(f":{port}"))

    def test_the_end_is_waited_for(self):
        unit = (REPOSITORY / "packaging/daisi-cdc-consumer.service").read_text()
        (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)s$", unit, re.M)
        grace = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["shutdown"]["grace"]
        needed = int(grace.removesuffix("s")) + 10
        self.assertGreaterEqual(int(seconds), needed)
        self.assertGreaterEqual(int(COMPOSE["daisi-cdc-consumer"]["stop_grace_period"].removesuffix("s")), needed)


class Image(unittest.TestCase):
    def test_what_is_copied_is_let_through(self):
        allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        copied = [path for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M) for path in line.split()[:-1]]
        self.assertEqual(sorted(copied), sorted(allowed))
        for path in copied:
            self.assertTrue((REPOSITORY / path).exists(), path)

    def test_every_member_of_the_workspace_has_its_manifest_there(self):
        (members,) = re.findall(r"^members = (\[.*\])$", (REPOSITORY / "Cargo.toml").read_text(), re.M)
        for member in yaml.safe_load(members):
            self.assertIn(f"COPY {member}/Cargo.toml {member}/", DOCKERFILE)

    def test_the_version_is_that_of_the_program(self):
        version = re.search(r'^version = "(.*)"', (REPOSITORY / "Cargo.toml").read_text(), re.M).group(1)
        self.assertIn(f"ARG VERSION={version}\n", DOCKERFILE)

    def test_nothing_is_for_one_architecture_alone(self):
        instructions = "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#"))
        for text in (instructions, *((K8S / "base" / name).read_text() for name in os.listdir(K8S / "base"))):
            self.assertNotRegex(text, r"x86|amd64|arm64|--platform|target-cpu|target-feature")
