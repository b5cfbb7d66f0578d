"""components/dead-letters and the script that makes Jobs of it."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import policy
import rendering
from rendering import K8S, REPOSITORY, config_text, of_kind, render, render_with

SECRETS = "/var/run/secrets/daisi-cdc-consumer"
# Stands in for a cluster: hands out the Job of the CronJob, and notes what is created. Patches it leaves to the real one.
KUBECTL = """#!/bin/sh
case "$*" in
*"patch --local"*) exec "$REAL" "$@" ;;
*"create job "*) cat "$WORK/job.json" ;;
*"create -f -"*) cat >"$WORK/created.json" ;;
*" logs -f "*) echo "the log of ${5#job/}" ;;
*) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""


def cron_job(objects):
    (found,) = of_kind(objects, "CronJob")
    return found


def letters(objects):
    """The only container of the Job."""
    (only,) = policy.pods(cron_job(objects))["spec"]["containers"]
    return only


@unittest.skipUnless(rendering.kubectl(), "kubectl is missing: components/dead-letters is NOT rendered")
class DeadLetters(unittest.TestCase):
    def test_it_never_runs_by_itself_and_nobody_takes_it_for_the_service(self):
        for objects in (render("overlays/production"), render_with("overlays/dev", "dead-letters")):
            self.assertIs(cron_job(objects)["spec"]["suspend"], True)
            template = policy.pods(cron_job(objects))
            self.assertEqual(template["spec"]["restartPolicy"], "Never")
            self.assertEqual(template["metadata"]["labels"], policy.LETTERS)

    def test_it_has_the_configuration_of_the_service_and_an_image_of_the_same_version(self):
        objects = render("overlays/production")
        template = policy.pods(cron_job(objects))
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        self.assertTrue(of_kind(objects, "ConfigMap", volumes["config"]["configMap"]["name"]))
        self.assertEqual(volumes["secrets"]["secret"]["secretName"], "daisi-cdc-dead-letters")
        self.assertEqual(letters(objects)["image"], rendering.container(rendering.service(objects))["image"])
        self.assertTrue(of_kind(objects, "ServiceAccount", template["spec"]["serviceAccountName"]))

    def test_the_program_accepts_its_settings_with_a_secret_of_two_files(self):
        for objects in (render("overlays/production"), render_with("overlays/dev", "dead-letters")):
            with tempfile.TemporaryDirectory() as name:
                for file in ("nats.nk", "ca.crt"):
                    (Path(name) / file).write_text("content\n")
                (Path(name) / "config.yaml").write_text(config_text(objects).replace(SECRETS, name))
                binary = os.environ.get("CDC_BINARY", REPOSITORY / "target/debug/daisi-cdc-consumer")
                inherited = {k: v for k, v in os.environ.items() if not k.startswith("DAISI_CDC_")}
                given = {entry["name"]: entry["value"] for entry in letters(objects)["env"]}
                arguments = [binary, "check", "--offline", "--config", f"{name}/config.yaml"]
                done = subprocess.run(arguments, env=inherited | given, capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertNotIn("no such file", done.stdout)

    def test_its_prefix_for_replies_is_the_one_of_the_rights(self):
        accounts = (REPOSITORY / "deploy/least-privilege/nats-accounts.conf").read_text()
        (prefix,) = [entry["value"] for entry in letters(render("overlays/production"))["env"] if entry["name"].endswith("INBOX_PREFIX")]
        self.assertIn(f'"{prefix}.>"', accounts)

    def script(self, work, *arguments):
        """Runs it on a cluster that is none."""
        job = cron_job(render("overlays/production"))["spec"]["jobTemplate"] | {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
        (Path(work) / "job.json").write_text(json.dumps(job))
        (Path(work) / "kubectl").write_text(KUBECTL)
        (Path(work) / "kubectl").chmod(0o755)
        env = os.environ | {"PATH": f"{work}:{os.environ['PATH']}", "REAL": rendering.kubectl(), "WORK": work, "KUBECONFIG": os.devnull}
        return subprocess.run([K8S / "dead-letters.sh", *arguments], env=env, capture_output=True, text=True, timeout=60)

    def test_the_script_makes_a_job_with_these_arguments_and_shows_its_log(self):
        with tempfile.TemporaryDirectory() as work:
            done = self.script(work, "replay", "--reason", "refused", "--dry-run")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"^the log of dead-letters-[0-9]+-[0-9]+\n$")
            created = json.loads((Path(work) / "created.json").read_text())
            (only,) = created["spec"]["template"]["spec"]["containers"]
            expected = ["dead-letters", "replay", "--reason", "refused", "--dry-run", "--config", "/etc/daisi-cdc-consumer/config.yaml"]
            self.assertEqual(only["args"], expected)

    def test_the_script_refuses_what_would_not_be_one_argument(self):
        with tempfile.TemporaryDirectory() as work:
            for arguments in ((), ("list", "--reason", 'x","y'), ("list", "\\")):
                self.assertEqual(self.script(work, *arguments).returncode, 64, arguments)
            self.assertFalse((Path(work) / "created.json").exists())
