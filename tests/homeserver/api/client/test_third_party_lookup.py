"""Looking up other networks over the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.rooms.networks import ThirdPartyNetworks
from tests.support.room_case import RoomTestCase

_BASE = "/thirdparty"


class Bridge:
    """What an application service knows; a dead one fails."""

    protocols: Sequence[str] = ("irc",)

    def __init__(self, name: str, *, dead: bool = False) -> None:
        self.name = name
        self.dead = dead
        self.asked: list[Any] = []

    def _answer(self, *asked: Any) -> list[dict[str, Any]]:
        self.asked.append(asked)
        if self.dead:
            raise ConnectionError("nobody there")
        return [{"protocol": "irc", "of": self.name}]

    async def metadata(self, protocol: str) -> dict[str, Any]:
        self._answer(protocol)
        instances = [{"network_id": "libera", "desc": self.name}]
        return {"user_fields": ["nick"], "instances": instances}

    async def locations(self, protocol: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        return self._answer(protocol, dict(fields))

    async def users(self, protocol: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        return self._answer(protocol, dict(fields))

    async def location_of(self, alias: str) -> list[dict[str, Any]]:
        return self._answer(alias)

    async def user_of(self, user_id: str) -> list[dict[str, Any]]:
        return self._answer(user_id)


class LookupTest(RoomTestCase):
    async def test_without_bridges_there_is_nothing(self) -> None:
        """Shows MISC-11."""
        await self.start()
        self.assertEqual(await self.alice.ok("GET", f"{_BASE}/protocols"), {})
        for path in (
            "protocol/irc",
            "location/irc?channel=x",
            "user/irc?nick=x",
            "location?alias=%23a:b",
            "user?userid=@a:b",
        ):
            answer = await self.alice.call("GET", f"{_BASE}/{path}")
            self.assert_error(answer, 404, "M_NOT_FOUND")
        for path in ("location", "user"):
            answer = await self.alice.call("GET", f"{_BASE}/{path}")
            self.assert_error(answer, 400, "M_MISSING_PARAM")

    async def test_answers_of_all_bridges_are_merged_and_dead_ones_tolerated(self) -> None:
        """Shows MISC-11."""
        await self.start()
        one, two, dead = Bridge("one"), Bridge("two"), Bridge("dead", dead=True)
        self.server.homeserver.services[ThirdPartyNetworks].networks += [dead, one, two]
        found = await self.alice.ok("GET", f"{_BASE}/protocols")
        self.assertEqual(found["irc"]["user_fields"], ["nick"])
        names = [each["instance_id"] for each in found["irc"]["instances"]]
        self.assertEqual(names, ["one|libera", "two|libera"])
        self.assertEqual(await self.alice.ok("GET", f"{_BASE}/protocol/irc"), found["irc"])
        for path, asked in (
            ("location/irc?channel=%23x", ("irc", {"channel": "#x"})),
            ("user/irc?nick=a%20b", ("irc", {"nick": "a b"})),
            ("location?alias=%23a:b", ("#a:b",)),
            ("user?userid=@a:b", ("@a:b",)),
        ):
            merged = await self.alice.ok("GET", f"{_BASE}/{path}")
            self.assertEqual([each["of"] for each in merged], ["one", "two"])
            self.assertEqual([each.asked[-1] for each in (one, two, dead)], [asked] * 3)
        answer = await self.alice.call("GET", f"{_BASE}/location/xmpp")
        self.assert_error(answer, 404, "M_NOT_FOUND")
