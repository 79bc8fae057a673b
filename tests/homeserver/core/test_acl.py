"""Server access control lists."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from homeserver.core.acl import is_allowed


class OrderTests(TestCase):
    def test_without_an_acl_everybody_is_allowed(self) -> None:
        """Shows ACL-1."""
        self.assertTrue(is_allowed("evil.example", None))

    def test_deny_comes_before_allow(self) -> None:
        """Shows ACL-1."""
        content = {"allow": ["*"], "deny": ["evil.example", "*.evil.example"]}
        self.assertFalse(is_allowed("evil.example", content))
        self.assertFalse(is_allowed("sub.evil.example", content))
        self.assertTrue(is_allowed("notevil.example", content))

    def test_what_is_on_no_list_is_denied(self) -> None:
        """Shows ACL-1."""
        self.assertFalse(is_allowed("other.example", {"allow": ["good.example"]}))
        self.assertTrue(is_allowed("good.example", {"allow": ["good.example"]}))

    def test_ip_literals_are_denied_before_the_lists(self) -> None:
        """Shows ACL-1."""
        content = {"allow": ["*", "1.2.3.4", "[::1]"], "allow_ip_literals": False}
        for server in ("1.2.3.4", "1.2.3.4:8448", "[::1]", "[::1]:8448"):
            self.assertFalse(is_allowed(server, content), server)
            self.assertTrue(is_allowed(server, {**content, "allow_ip_literals": True}), server)
        self.assertTrue(is_allowed("1.2.3.4.example", content))

    def test_ip_literals_count_as_allowed_unless_it_is_false(self) -> None:
        """Shows ACL-1."""
        values: list[Any] = ["false", 0, None, [], {}]
        for value in values:
            self.assertTrue(is_allowed("1.2.3.4", {"allow": ["*"], "allow_ip_literals": value}))

    def test_the_port_is_cut_off(self) -> None:
        """Shows ACL-1."""
        content = {"allow": ["*"], "deny": ["evil.example", "[fe80::1]"]}
        for server in ("evil.example:1", "evil.example:8448", "[fe80::1]:9000", "[fe80::1]"):
            self.assertFalse(is_allowed(server, content), server)
        self.assertFalse(is_allowed("good.example:8448", {"allow": ["good.example:8448"]}))

    def test_case_is_ignored(self) -> None:
        """Shows ACL-1."""
        content = {"allow": ["*"], "deny": ["EVIL.example", "*.Bad.Example"]}
        self.assertFalse(is_allowed("evil.EXAMPLE", content))
        self.assertFalse(is_allowed("A.bad.example", content))

    def test_globs(self) -> None:
        """Shows ACL-1."""
        content = {"allow": ["*"], "deny": ["evil?.example", "*.b[ad].example"]}
        self.assertFalse(is_allowed("evil1.example", content))
        self.assertTrue(is_allowed("evil12.example", content))
        self.assertTrue(is_allowed("x.ba.example", content))


class MalformedTests(TestCase):
    def test_malformed_lists_count_as_empty(self) -> None:
        """Shows ACL-2."""
        contents: list[Any] = [
            {},
            {"deny": []},
            {"allow": "*"},
            {"allow": {"*": True}},
            {"allow": None},
            {"allow": [None, 1, ["*"], {}]},
            [],
            "*",
        ]
        for content in contents:
            self.assertFalse(is_allowed("good.example", content), content)

    def test_a_malformed_deny_list_denies_nobody(self) -> None:
        """Shows ACL-2."""
        self.assertTrue(is_allowed("good.example", {"allow": ["*"], "deny": "good.example"}))

    def test_bad_entries_do_not_spoil_good_ones(self) -> None:
        """Shows ACL-2."""
        content = {"allow": [7, "*"], "deny": [None, "evil.example"]}
        self.assertTrue(is_allowed("good.example", content))
        self.assertFalse(is_allowed("evil.example", content))

    def test_patterns_of_strangers_take_linear_time(self) -> None:
        """A pattern that backtracking would never get done with."""
        pattern = "*a" * 200 + "b"
        self.assertTrue(is_allowed("a" * 250, {"allow": ["*"], "deny": [pattern]}))
