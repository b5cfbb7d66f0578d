"""Links of the alerts lead where whoever runs the service says."""

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import yaml

import rendering
from rendering import K8S, REPOSITORY, of_kind, render, render_with

ALERTS = "k8s/components/alerts"


def links(groups):
    """Alerts and where their links lead: the page and the place in it."""
    return {rule["alert"]: tuple(rule["annotations"]["runbook_url"].split("#")) for group in groups for rule in group["rules"]}


def expected(page):
    """The links of all alerts if they lead to a page."""
    rules = yaml.safe_load((K8S / "components/alerts/rules.yaml").read_text())
    return {alert: (page, alert.lower()) for alert in links(rules["groups"])}


class Links(unittest.TestCase):
    def test_one_command_sets_them_all_and_the_rules_still_pass_their_tests(self):
        with tempfile.TemporaryDirectory() as name:
            copied = Path(name)
            shutil.copytree(REPOSITORY / ALERTS, copied / ALERTS)
            (copied / "scripts").mkdir()
            script = shutil.copy(REPOSITORY / "scripts/rules.sh", copied / "scripts")
            for arguments in (["https://wiki.example/cdc.md"], ["--check"]):
                done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            for file, groups in (("rules.yaml", lambda f: f["groups"]), ("prometheus-rule.yaml", lambda f: f["spec"]["groups"])):
                written = yaml.safe_load((copied / ALERTS / file).read_text())
                self.assertEqual(links(groups(written)), expected("https://wiki.example/cdc.md"))

    @unittest.skipUnless(rendering.kubectl(), "kubectl is missing: links of production are NOT rendered")
    def test_one_line_of_production_sets_them_all(self):
        (rule,) = of_kind(render("overlays/production"), "PrometheusRule")
        page = rule["metadata"]["annotations"]["daisi-cdc-consumer/runbook"]
        self.assertRegex(page, r"^https://")
        self.assertEqual((K8S / "overlays/production/kustomization.yaml").read_text().count(page), 1)
        self.assertEqual(links(rule["spec"]["groups"]), expected(page))
        (rule,) = of_kind(render_with("base", "alerts"), "PrometheusRule")
        self.assertEqual(links(rule["spec"]["groups"]), expected("docs/runbook.md"))
