"""Push rules over the API."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.homeserver.api.client.test_account_data import BAD_BODIES, data_of
from tests.support.server import User, make_server


async def put_rule(user: User, kind: str, rule_id: str, body: Any = None, **query: Any) -> None:
    """Set a push rule that must be accepted."""
    await user.ok("PUT", f"/pushrules/global/{kind}/{rule_id}", body or RULES[kind], query=query)


RULES: dict[str, Any] = {
    "override": {"actions": ["notify"], "conditions": []},
    "underride": {"actions": ["notify"], "conditions": []},
    "sender": {"actions": []},
    "room": {"actions": []},
    "content": {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "tea"},
}


class PushRulesTest(TestCase):
    async def _ids(self, user: User, kind: str) -> list[str]:
        rules = await user.ok("GET", "/pushrules/global/")
        return [rule["rule_id"] for rule in rules[kind]]

    async def test_paths_with_and_without_slash(self) -> None:
        alice = await (await make_server(self)).register()
        everything = await alice.ok("GET", "/pushrules/")
        self.assertEqual(everything.keys(), {"global"})
        self.assertEqual(await alice.ok("GET", "/pushrules"), everything)
        for path in ("/pushrules/global/", "/pushrules/global"):
            self.assertEqual(await alice.ok("GET", path), everything["global"])
        for path in ("/pushrules/global/override/", "/pushrules/global/override"):
            self.assertEqual(await alice.ok("GET", path), everything["global"]["override"])
        r0 = await alice.ok("GET", "/_matrix/client/r0/pushrules/")
        self.assertEqual(r0, everything)

    async def test_default_rules_of_today(self) -> None:
        """Shows PSH-2."""
        alice = await (await make_server(self)).register()
        rules = await alice.ok("GET", "/pushrules/global/")
        self.assertEqual(
            [rule["rule_id"] for rule in rules["override"]],
            [
                ".m.rule.master",
                ".m.rule.suppress_notices",
                ".m.rule.invite_for_me",
                ".m.rule.member_event",
                ".m.rule.is_user_mention",
                ".m.rule.is_room_mention",
                ".m.rule.tombstone",
                ".m.rule.reaction",
                ".m.rule.room.server_acl",
                ".m.rule.suppress_edits",
            ],
        )
        self.assertEqual(rules["content"], [])
        self.assertEqual(
            {rule["rule_id"] for rule in rules["underride"]},
            {
                ".m.rule.call",
                ".m.rule.encrypted_room_one_to_one",
                ".m.rule.room_one_to_one",
                ".m.rule.message",
                ".m.rule.encrypted",
            },
        )
        for kind in rules.values():
            for rule in kind:
                self.assertTrue(rule["default"])

    async def test_master_stays_above_own_rules(self) -> None:
        """Shows PSH-1."""
        alice = await (await make_server(self)).register()
        await put_rule(alice, "override", "mine")
        self.assertEqual(
            (await self._ids(alice, "override"))[:3],
            [".m.rule.master", "mine", ".m.rule.suppress_notices"],
        )

    async def test_a_rule_of_each_kind(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        for kind, body in RULES.items():
            await put_rule(alice, kind, "mine", body)
            rule = await alice.ok("GET", f"/pushrules/global/{kind}/mine")
            self.assertEqual(
                rule, {"rule_id": "mine", "default": False, "enabled": True, **body}, kind
            )
            path = f"/pushrules/global/{kind}/mine"
            self.assertEqual(await alice.ok("GET", f"{path}/enabled"), {"enabled": True})
            self.assertEqual(await alice.ok("GET", f"{path}/actions"), {"actions": body["actions"]})
            await alice.ok("DELETE", path)
            status, answer = await alice.call("GET", path)
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))

    async def test_order(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        await put_rule(alice, "content", "a")
        await put_rule(alice, "content", "b")
        self.assertEqual(await self._ids(alice, "content"), ["b", "a"])
        await put_rule(alice, "content", "c", before="a")
        await put_rule(alice, "content", "d", after="a")
        self.assertEqual(await self._ids(alice, "content"), ["b", "c", "a", "d"])
        await put_rule(alice, "content", "b", {"actions": [], "pattern": "x"})
        self.assertEqual(await self._ids(alice, "content"), ["b", "c", "a", "d"])
        await put_rule(alice, "content", "b", after="d")
        self.assertEqual(await self._ids(alice, "content"), ["c", "a", "d", "b"])
        status, answer = await alice.call(
            "PUT", "/pushrules/global/content/e", RULES["content"], query={"before": "nobody"}
        )
        self.assertEqual((status, answer["errcode"]), (400, "M_UNKNOWN"))

    async def test_changing_again_keeps_it_disabled(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        await put_rule(alice, "content", "a")
        await alice.ok("PUT", "/pushrules/global/content/a/enabled", {"enabled": False})
        await put_rule(alice, "content", "a", {"actions": [], "pattern": "cake"})
        rule = await alice.ok("GET", "/pushrules/global/content/a")
        self.assertEqual((rule["enabled"], rule["pattern"]), (False, "cake"))

    async def test_defaults_are_switched_but_not_deleted(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        path = "/pushrules/global/override/.m.rule.suppress_notices"
        await alice.ok("PUT", f"{path}/enabled", {"enabled": False})
        await alice.ok("PUT", f"{path}/actions", {"actions": ["notify"]})
        rule = await alice.ok("GET", path)
        self.assertEqual((rule["enabled"], rule["actions"]), (False, ["notify"]))
        for method, body in (("DELETE", None), ("PUT", RULES["override"])):
            status, answer = await alice.call(method, path, body)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))

    async def test_historical_actions_mean_nothing(self) -> None:
        """Shows PSH-4."""
        alice = await (await make_server(self)).register()
        await put_rule(alice, "room", "!x:hearth.test", {"actions": ["dont_notify", "coalesce"]})
        rule = await alice.ok("GET", "/pushrules/global/room/!x:hearth.test")
        self.assertEqual(rule["actions"], [])

    async def test_unknown_rules(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        root = "/pushrules/global/content/nothing"
        for method, path, body in (
            ("GET", root, None),
            ("DELETE", root, None),
            ("GET", f"{root}/enabled", None),
            ("PUT", f"{root}/enabled", {"enabled": True}),
            ("GET", f"{root}/actions", None),
            ("PUT", f"{root}/actions", {"actions": []}),
        ):
            status, answer = await alice.call(method, path, body)
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"), path)

    async def test_bad_requests(self) -> None:
        """Shows PSH-6."""
        alice = await (await make_server(self)).register()
        for path, body, errcode in (
            ("content/x", {"actions": []}, "M_MISSING_PARAM"),
            ("content/x", {"pattern": "x"}, "M_MISSING_PARAM"),
            ("content/x", {"actions": [], "pattern": 1}, "M_BAD_JSON"),
            ("content/x", {"actions": "notify", "pattern": "x"}, "M_BAD_JSON"),
            ("content/x", {"actions": ["shout"], "pattern": "x"}, "M_INVALID_PARAM"),
            ("content/x", {"actions": [7], "pattern": "x"}, "M_BAD_JSON"),
            ("override/x", {"actions": []}, "M_MISSING_PARAM"),
            ("override/x", {"actions": [], "conditions": {}}, "M_BAD_JSON"),
            ("override/x", {"actions": [], "conditions": [{}]}, "M_MISSING_PARAM"),
            ("nonsense/x", {"actions": []}, "M_INVALID_PARAM"),
            ("room/.mine", {"actions": []}, "M_INVALID_PARAM"),
            ("room/a%2Fb", {"actions": []}, "M_INVALID_PARAM"),
            ("room/a%5Cb", {"actions": []}, "M_INVALID_PARAM"),
        ):
            status, answer = await alice.call("PUT", f"/pushrules/global/{path}", body)
            self.assertEqual((status, answer["errcode"]), (400, errcode), (path, body))
        status, answer = await alice.call("GET", "/pushrules/global/nonsense/")
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        await put_rule(alice, "room", "x")
        for path in ("room/y", "room/x/enabled", "room/x/actions"):
            for bad in BAD_BODIES:
                status, answer = await alice.call("PUT", f"/pushrules/global/{path}", body=bad)
                self.assertEqual(status, 400, (path, bad))
                self.assertIn(answer["errcode"], ("M_BAD_JSON", "M_NOT_JSON"), (path, bad))
        for body, errcode in (({}, "M_MISSING_PARAM"), ({"enabled": "yes"}, "M_BAD_JSON")):
            status, answer = await alice.call("PUT", "/pushrules/global/room/x/enabled", body)
            self.assertEqual((status, answer["errcode"]), (400, errcode))
        self.assertEqual(await self._ids(alice, "room"), ["x"])

    async def test_a_change_comes_with_sync(self) -> None:
        """Shows SYN-20."""
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        since = (await alice.sync())["next_batch"]
        bobs = (await bob.sync())["next_batch"]
        await put_rule(alice, "content", "tea")
        answer = await alice.sync(since)
        self.assertEqual(data_of(answer), {"m.push_rules": await alice.ok("GET", "/pushrules/")})
        self.assertEqual(data_of(await alice.sync(answer["next_batch"])), {})
        self.assertEqual(data_of(await bob.sync(bobs)), {})
        self.assertEqual((await bob.ok("GET", "/pushrules/"))["global"]["content"], [])

    async def test_two_changes_at_once_are_both_kept(self) -> None:
        alice = await (await make_server(self)).register()
        await gatherResults(
            [
                Deferred.fromCoroutine(put_rule(alice, "sender", f"@u{n}:hearth.test"))
                for n in range(8)
            ]
        )
        self.assertEqual(len(await self._ids(alice, "sender")), 8)
