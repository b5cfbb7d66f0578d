"""Production and what scales it go with the users, streams and the consumer of deploy/least-privilege."""

import json
import re
import unittest

import rendering
from rendering import REPOSITORY, render, render_with, seconds, setting

RIGHTS = REPOSITORY / "deploy/least-privilege"


@unittest.skipUnless(rendering.kubectl(), "kubectl is missing: production is NOT held against the rights")
class Rights(unittest.TestCase):
    def renderings(self):
        yield "production", render("overlays/production")
        for component in ("hpa", "keda", "recreate"):
            yield component, render_with("overlays/production", component)

    def test_the_consumer_is_as_the_settings_say(self):
        consumer = json.loads((RIGHTS / "streams/cdc_consumers.json").read_text())
        for name, objects in self.renderings():
            with self.subTest(name):
                self.assertEqual(consumer["durable_name"], setting(objects, "source.consumer"))
                self.assertEqual(consumer["filter_subject"], setting(objects, "source.subjects"))
                self.assertEqual(consumer["ack_wait"], seconds(setting(objects, "source.ack_wait")) * 10**9)
                self.assertEqual(consumer["max_ack_pending"], setting(objects, "source.max_ack_pending"))
                self.assertEqual(consumer["max_deliver"], setting(objects, "source.max_deliver"))

    def test_nothing_is_created_that_must_not_be(self):
        for name, objects in self.renderings():
            with self.subTest(name):
                self.assertEqual([setting(objects, f"{stream}.create") for stream in ("source", "target")], [False, False])

    def test_the_users_are_those_of_the_rights(self):
        accounts, acl = ((RIGHTS / file).read_text() for file in ("nats-accounts.conf", "redis-users.acl"))
        for name, objects in self.renderings():
            with self.subTest(name):
                self.assertIn(f'"{setting(objects, "nats.inbox_prefix")}.>"', accounts)
                self.assertIn(setting(objects, "dedup.user"), re.findall(r"^user (\S+) on", acl, re.M))
                self.assertTrue(setting(objects, "nats.nkey_seed_file"))
