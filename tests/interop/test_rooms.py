"""What happens in a room of Hearth and Synapse, in both directions."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from tests.interop.account import Account
from tests.interop.case import InteropCase, both_ways, each_version, with_versions
from tests.support.network import eventually


@both_ways(globals())
@with_versions
class Rooms(InteropCase):
    @each_version()
    async def test_state(self, version: str) -> None:
        room_id = await self.shared_room(version)
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "one"})
        await self.bob.sees_state(room_id, "m.room.topic", {"topic": "one"})
        levels = await self.alice.state_of(room_id, "m.room.power_levels")
        levels["users"][self.bob.user_id] = 50
        await self.alice.set_state(room_id, "m.room.power_levels", levels)
        await self.bob.sees_state(room_id, "m.room.power_levels", levels)
        await self.bob.set_state(room_id, "m.room.topic", {"topic": "two"})
        await self.alice.sees_state(room_id, "m.room.topic", {"topic": "two"})
        await self.agree(room_id, self.alice, self.bob)

    @each_version()
    async def test_redaction(self, version: str) -> None:
        room_id = await self.shared_room(version)
        for sender, reader in ((self.alice, self.bob), (self.bob, self.alice)):
            event_id = await sender.send(room_id, "to be taken back")
            await reader.sees(room_id, event_id)
            await sender.redact(room_id, event_id)
            await eventually(partial(self._is_redacted, reader, room_id, event_id))
        # A moderator takes back what another wrote.
        event_id = await self.bob.send(room_id, "to be taken away")
        await self.alice.sees(room_id, event_id)
        await self.alice.redact(room_id, event_id)
        await eventually(partial(self._is_redacted, self.bob, room_id, event_id))

    async def _is_redacted(self, reader: Account, room_id: str, event_id: str) -> bool:
        event = await reader.event(room_id, event_id)
        return bool(event["content"] == {} and "redacted_because" in event["unsigned"])

    @each_version()
    async def test_concurrent_messages(self, version: str) -> None:
        """Both send at the same time, again and again: the graph forks, and both have all."""
        room_id = await self.shared_room(version)
        sent = set[str]()
        for number in range(5):
            first = self._later(self.alice.send(room_id, f"a{number}"))
            second = self._later(self.bob.send(room_id, f"b{number}"))
            sent |= {await first, await second}
        for reader in (self.alice, self.bob):
            await eventually(partial(self._has_all, reader, room_id, sent))

    async def _has_all(self, reader: Account, room_id: str, sent: set[str]) -> bool:
        missing = sent - {event["event_id"] for event in await reader.history(room_id)}
        assert not missing, f"{reader.server.kind} lacks {missing}"
        return True

    def _later(self, coroutine: Any) -> Any:
        return Deferred.fromCoroutine(coroutine)

    @each_version("10", "12")
    async def test_backfill(self, version: str) -> None:
        """Shows BF-1: 500 messages from before the join."""
        room_id = await self.room(version)
        for number in range(500):
            await self.alice.send(room_id, f"m{number}")
        await self.bob.join(room_id, self.home.name)
        expected = [f"m{number}" for number in range(500)]

        async def has_all() -> bool:
            found = await self.bob.bodies(room_id)
            assert found == expected, f"{len(found)} of 500: {found[:3]} ... {found[-3:]}"
            return True

        await eventually(has_all, within=60)

    async def test_typing(self) -> None:
        room_id = await self.shared_room()
        for typist, reader in ((self.alice, self.bob), (self.bob, self.alice)):
            await reader.sync()
            path = f"/rooms/{room_id}/typing/{typist.user_id}"
            await typist.ok("PUT", path, {"typing": True, "timeout": 20000})
            await reader.synced(
                lambda answer, who=typist: (
                    who.user_id in _ephemeral(answer, room_id, "m.typing").get("user_ids", [])
                ),
                f"typing on {reader.server.kind}",
            )
            await typist.ok("PUT", path, {"typing": False})

    async def test_receipts(self) -> None:
        room_id = await self.shared_room()
        for sender, reader in ((self.alice, self.bob), (self.bob, self.alice)):
            await sender.sync()
            event_id = await sender.send(room_id)
            await reader.sees(room_id, event_id)
            await reader.ok("POST", f"/rooms/{room_id}/receipt/m.read/{event_id}", {})
            await sender.synced(
                lambda answer, e=event_id, who=reader: (
                    who.user_id
                    in _ephemeral(answer, room_id, "m.receipt").get(e, {}).get("m.read", {})
                ),
                f"receipt on {sender.server.kind}",
            )

    async def test_presence(self) -> None:
        await self.shared_room()
        for who, watcher in ((self.alice, self.bob), (self.bob, self.alice)):
            await watcher.sync()
            said = f"busy {who.user_id}"
            await who.ok(
                "PUT",
                f"/presence/{who.user_id}/status",
                {"presence": "online", "status_msg": said},
            )
            await watcher.synced(
                lambda answer, who=who, said=said: any(
                    event["sender"] == who.user_id and event["content"].get("status_msg") == said
                    for event in answer.get("presence", {}).get("events", [])
                ),
                f"presence on {watcher.server.kind}",
            )

    async def test_join_by_alias(self) -> None:
        name = f"interop{self.alice.user_id[1:].partition(':')[0]}"
        room_id = await self.room(room_alias_name=name)
        alias = f"#{name}:{self.home.name}"
        found = await self.bob.ok("GET", f"/directory/room/{alias.replace('#', '%23')}")
        self.assertEqual(found["room_id"], room_id)
        self.assertIn(self.home.name, found["servers"])
        await self.bob.join(alias)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")

    async def test_public_rooms(self) -> None:
        room_id = await self.room(name="Open house", visibility="public")

        async def is_listed() -> bool:
            listed = await self.bob.ok("GET", "/publicRooms", server=self.home.name)
            return room_id in [room["room_id"] for room in listed["chunk"]]

        # Synapse gathers its list in the background.
        await eventually(is_listed, "the room in the list")
        path = f"/publicRooms?server={self.home.name}"
        body = {"filter": {"generic_search_term": "open house"}}
        found = await self.bob.ok("POST", path, body)
        self.assertIn(room_id, [room["room_id"] for room in found["chunk"]])

    async def test_profile(self) -> None:
        await self.alice.ok(
            "PUT", f"/profile/{self.alice.user_id}/displayname", {"displayname": "Alice A."}
        )
        profile = await self.bob.ok("GET", f"/profile/{self.alice.user_id}")
        self.assertEqual(profile["displayname"], "Alice A.")
        room_id = await self.shared_room()
        await self.bob.ok("PUT", f"/profile/{self.bob.user_id}/displayname", {"displayname": "B."})

        async def shown() -> bool:
            content = await self.alice.state_of(room_id, "m.room.member", self.bob.user_id)
            return bool(content.get("displayname") == "B.")

        await eventually(shown, "the new name in the room")


def _ephemeral(answer: Any, room_id: str, kind: str) -> dict[str, Any]:
    room = answer.get("rooms", {}).get("join", {}).get(room_id, {})
    for event in room.get("ephemeral", {}).get("events", []):
        if event["type"] == kind:
            content: dict[str, Any] = event["content"]
            return content
    return {}
