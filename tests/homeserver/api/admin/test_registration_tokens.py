"""Registration tokens, for administrators."""

from __future__ import annotations

from typing import Any

from storage import registration_tokens
from tests.homeserver.api.admin.case import V1, AdminTestCase

TOKENS = f"{V1}/registration_tokens"
FUTURE = 99_999_999_999_999


class RegistrationTokensTest(AdminTestCase):
    async def test_tokens(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        self.assertEqual(await self.alice.ok("GET", TOKENS), {"registration_tokens": []})
        random = await self.alice.ok("POST", f"{TOKENS}/new", {})
        self.assertEqual(len(random["token"]), 16)
        self.assertEqual(
            {key: value for key, value in random.items() if key != "token"},
            {"uses_allowed": None, "pending": 0, "completed": 0, "expiry_time": None},
        )
        short = await self.alice.ok("POST", f"{TOKENS}/new", {"length": 5})
        self.assertEqual(len(short["token"]), 5)
        body = {"token": "abc", "uses_allowed": 2, "expiry_time": FUTURE}
        made = await self.alice.ok("POST", f"{TOKENS}/new", body)
        self.assertEqual(made, {**body, "pending": 0, "completed": 0})
        self.assertEqual(await self.alice.ok("GET", f"{TOKENS}/abc"), made)
        db = self.server.homeserver.db
        self.assertTrue(await db.write(registration_tokens.use, "abc", 1))
        changed = await self.alice.ok("PUT", f"{TOKENS}/abc", {"uses_allowed": 1})
        self.assertEqual((changed["uses_allowed"], changed["completed"]), (1, 1))
        self.assertEqual(changed["expiry_time"], FUTURE)
        for query, names in (
            ("", {"abc", random["token"], short["token"]}),
            ("?valid=true", {random["token"], short["token"]}),
            ("?valid=false", {"abc"}),
        ):
            found = (await self.alice.ok("GET", TOKENS + query))["registration_tokens"]
            self.assertEqual({each["token"] for each in found}, names)
        changed = await self.alice.ok(
            "PUT", f"{TOKENS}/abc", {"uses_allowed": None, "expiry_time": None}
        )
        self.assertEqual((changed["uses_allowed"], changed["expiry_time"]), (None, None))
        self.assertEqual(await self.alice.ok("DELETE", f"{TOKENS}/abc"), {})
        await self.unknown("DELETE", f"{TOKENS}/abc")

    async def test_bad_requests(self) -> None:
        """Shows XC-4."""
        await self.prepare()
        await self.alice.ok("POST", f"{TOKENS}/new", {"token": "abc"})
        bad: list[Any] = [
            {"token": "abc"},
            {"token": "a b"},
            {"token": ""},
            {"token": "a" * 65},
            {"uses_allowed": -1},
            {"expiry_time": 1},
            {"length": 0},
            {"length": 65},
        ]
        for body in bad:
            await self.refused("M_INVALID_PARAM", "POST", f"{TOKENS}/new", body)
        for body in ({"token": 1}, {"uses_allowed": "x"}, {"uses_allowed": 1.5}, {"length": "x"}):
            await self.refused("M_BAD_JSON", "POST", f"{TOKENS}/new", body)
        await self.refused("M_INVALID_PARAM", "GET", f"{TOKENS}?valid=x")
        await self.refused("M_INVALID_PARAM", "PUT", f"{TOKENS}/abc", {"expiry_time": 1})
        await self.refused("M_INVALID_PARAM", "PUT", f"{TOKENS}/abc", {"uses_allowed": -1})
        for method, body in (("GET", None), ("PUT", {"uses_allowed": 1}), ("PUT", {})):
            await self.unknown(method, f"{TOKENS}/nope", body)
