"""Whose invites a user takes."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.invite_permission import InvitePermission, Verdict, strictest


def decide(inviter: str, **content: Any) -> str:
    return InvitePermission.of(content).verdict(inviter).value


class InvitePermissionTest(TestCase):
    def test_the_first_list_that_matches_decides(self) -> None:
        everybody = {"blocked_servers": ["*"]}
        for inviter, content, expected in (
            ("@a:good.org", {}, "allow"),
            ("@a:good.org", everybody, "block"),
            ("@a:good.org", {"allowed_servers": ["good.org"], **everybody}, "allow"),
            ("@a:good.org:8448", {"allowed_servers": ["good.org"], **everybody}, "allow"),
            ("@a:x.good.org", {"allowed_servers": ["*.GOOD.org"], **everybody}, "allow"),
            ("@a:bad.org", {"ignored_servers": ["bad.org"], **everybody}, "ignore"),
            ("@a:good.org", {"blocked_users": ["@a:*"], "allowed_servers": ["*"]}, "block"),
            ("@a:good.org", {"allowed_users": ["@a:good.org"], "ignored_users": ["*"]}, "allow"),
            ("@b:good.org", {"allowed_users": ["@a:good.org"], "ignored_users": ["*"]}, "ignore"),
            ("@ab:good.org", {"blocked_users": ["@a?:good.org"]}, "block"),
            ("@a:good.org", {"enabled": False, **everybody}, "allow"),
            ("@a:good.org", {"default_action": "block"}, "block"),
            ("@a:good.org", {"default_action": "allow"}, "allow"),
        ):
            self.assertEqual(decide(inviter, **content), expected, (inviter, content))

    def test_what_is_malformed_is_no_configuration(self) -> None:
        for content in (
            {"blocked_servers": "*"},
            {"blocked_servers": ["*", 1]},
            {"blocked_servers": ["*"], "allowed_users": {}},
            {"blocked_servers": ["*"], "enabled": "yes"},
            {"default_action": ["block"]},
        ):
            permission = InvitePermission.of(content)
            self.assertTrue(permission.allows_all, content)
            self.assertIs(permission.verdict("@a:b"), Verdict.ALLOW)

    def test_long_patterns_match_nothing(self) -> None:
        self.assertEqual(decide("@a:b", blocked_users=["*" * 1000, "?" * 10_000]), "block")
        self.assertEqual(decide("@a:b", blocked_users=["*a" * 10_000]), "allow")

    def test_the_strictest(self) -> None:
        self.assertIs(strictest([]), Verdict.ALLOW)
        self.assertIs(strictest([Verdict.IGNORE, Verdict.ALLOW]), Verdict.IGNORE)
        self.assertIs(strictest([Verdict.IGNORE, Verdict.BLOCK]), Verdict.BLOCK)
