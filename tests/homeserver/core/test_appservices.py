"""Registrations of application services."""

from __future__ import annotations

import time
from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.appservices import BadRegistration, check_together, parse_registration
from tests.support.appservices import registration


class ParsingTest(TestCase):
    def test_all(self) -> None:
        """Shows AS-1: expressions are matched on whole identifiers."""
        found = parse_registration(
            registration(
                url="http://localhost:9000/path/",
                rate_limited=False,
                protocols=["irc"],
                receive_ephemeral=True,
                namespaces={
                    "users": [
                        {"exclusive": True, "regex": "@_irc_.*:hearth\\.test"},
                        {"regex": "@shared_.*", "exclusive": False},
                    ],
                    "rooms": [{"exclusive": False, "regex": "!a.*"}],
                    "aliases": [{"exclusive": True, "regex": "#_irc_.*"}],
                },
                something_else=1,
            ),
            "hearth.test",
        )
        self.assertEqual(found.url, "http://localhost:9000/path")
        self.assertEqual((found.rate_limited, found.receive_ephemeral), (False, True))
        self.assertEqual((found.sender, found.protocols), ("@irc-bot:hearth.test", ("irc",)))
        for user_id, owned, claimed in (
            ("@irc-bot:hearth.test", True, True),
            ("@_irc_x:hearth.test", True, True),
            ("@shared_x:hearth.test", True, False),
            ("@shared_x:elsewhere.test", False, False),
            ("@x_irc_x:hearth.test", False, False),
            ("@_irc_x:hearthxtest", False, False),
            ("@irc-bot2:hearth.test", False, False),
        ):
            self.assertEqual(found.owns_user(user_id), owned, user_id)
            self.assertEqual(found.claims_user(user_id), claimed, user_id)
        self.assertTrue(found.owns_alias("#_irc_a:hearth.test"))
        self.assertFalse(found.claims_alias("#irc_a:hearth.test"))
        self.assertTrue(found.has_room("!abc"))
        self.assertNotIn("as-token", repr(found))
        self.assertTrue(parse_registration(registration(), "hearth.test").rate_limited)

    def test_problems(self) -> None:
        """Shows AS-1."""
        wrong: tuple[tuple[dict[str, Any], str], ...] = (
            ({"id": None}, "id: expected text, found nothing"),
            ({"id": 17}, "id: expected text"),
            ({"as_token": ""}, "as_token"),
            ({"as_token": "a b"}, "as_token: may hold ASCII"),
            ({"hs_token": "ä"}, "hs_token: may hold ASCII"),
            ({"url": "localhost:9000"}, "url: expected http"),
            ({"url": ["a"]}, "url: expected http"),
            ({"sender_localpart": None}, "sender_localpart: expected text"),
            ({"sender_localpart": "a\x00"}, "sender_localpart"),
            ({"sender_localpart": "x" * 300}, "sender_localpart"),
            ({"namespaces": None}, "namespaces: expected"),
            ({"namespaces": {"user": []}}, "namespaces.user: expected users"),
            ({"namespaces": {"users": {}}}, "namespaces.users: expected a list"),
            ({"namespaces": {"users": ["@a"]}}, "namespaces.users[0]: expected"),
            ({"namespaces": {"users": [{"exclusive": True}]}}, "namespaces.users[0]: expected"),
            ({"namespaces": {"rooms": [{"regex": "("}]}}, "namespaces.rooms[0].regex: missing )"),
            ({"namespaces": {"rooms": [{"regex": "(?!a)b"}]}}, "namespaces.rooms[0].regex"),
            ({"namespaces": {"users": [{"regex": "a", "exclusive": 1}]}}, "exclusive: expected"),
            ({"rate_limited": "no"}, "rate_limited: expected true or false"),
            ({"protocols": "irc"}, "protocols: expected a list"),
        )
        for changed, told in wrong:
            with self.assertRaises(BadRegistration) as caught:
                parse_registration(registration(**changed), "hearth.test")
            self.assertIn(told, "\n".join(caught.exception.problems))
        contents: tuple[Any, ...] = (None, [], "text", 17)
        for content in contents:
            with self.assertRaises(BadRegistration):
                parse_registration(content, "hearth.test")

    def test_together(self) -> None:
        """Shows AS-1: IDs and tokens belong to one service."""
        one = parse_registration(registration("one"), "hearth.test")
        same: tuple[tuple[str, Any], ...] = (
            ("id", "one"),
            ("as_token", one.as_token),
            ("hs_token", one.hs_token),
            ("sender_localpart", "one-bot"),
        )
        for key, value in same:
            other = parse_registration(registration("two", **{key: value}), "hearth.test")
            [problem] = check_together([one, other])
            self.assertTrue(problem.startswith(f"{key}: "), problem)
        self.assertEqual(check_together([one]), [])

    def test_expressions_cost_little(self) -> None:
        """An expression that would take others ages is matched at once."""
        users = [{"exclusive": True, "regex": "@(a+)+b:hearth.test"}]
        found = parse_registration(registration(namespaces={"users": users}), "hearth.test")
        started = time.process_time()
        self.assertFalse(found.claims_user("@" + "a" * 240 + ":hearth.test"))
        self.assertLess(time.process_time() - started, 1)
