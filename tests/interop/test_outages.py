"""A server is down for a while: both come to agree again."""

from __future__ import annotations

import secrets

from twisted.internet.defer import Deferred

from tests.interop.account import pause, together
from tests.interop.case import InteropCase, both_ways, each_version, with_versions
from tests.support.network import eventually


@both_ways(globals())
@with_versions
class Outages(InteropCase):
    async def test_away_is_down(self) -> None:
        """What the home server's user did meanwhile reaches the other one after its return.

        In rooms of two versions.
        """
        rooms = [await self.shared_room("10"), await self.shared_room("12")]
        content = {"while": "down"}
        self.away.stop()
        try:
            sent = await together(self._meanwhile(room_id) for room_id in rooms)
            await self.alice.ok(
                "PUT",
                f"/sendToDevice/org.example.note/{secrets.token_hex(4)}",
                {"messages": {self.bob.user_id: {self.bob.device_id: content}}},
            )
            await pause(1)
        finally:
            await self.away.start()
        # It is heard from, which lets the other one try again at once.
        for room_id, events in zip(rooms, sent, strict=True):
            back = await self.bob.send(room_id, "back")
            await self.alice.sees(room_id, back)
            await self.bob.sees(room_id, events[-1], within=60)
            await self._has_all(room_id, events)
            await self.agree(room_id, self.alice, self.bob)
        await self.bob.synced(
            lambda answer: (
                content
                in [event["content"] for event in answer.get("to_device", {}).get("events", [])]
            ),
            "the message to the device",
            within=60,
        )

    async def _meanwhile(self, room_id: str) -> list[str]:
        """Messages of alice's and a change of state; the messages."""
        sent = [await self.alice.send(room_id, f"m{number}") for number in range(30)]
        await self.alice.set_state(room_id, "m.room.topic", {"topic": "meanwhile"})
        return sent

    async def _has_all(self, room_id: str, sent: list[str], within: float = 60) -> None:
        """Wait until bob's history has these."""

        async def has_all() -> bool:
            history = {event["event_id"] for event in await self.bob.history(room_id)}
            assert history.issuperset(sent), f"{len(set(sent) - history)} are missing"
            return True

        await eventually(has_all, within=within)

    @each_version("10")
    async def test_killed_and_back(self, version: str) -> None:
        """Killed while it is sent to; after the restart both sides agree."""
        room_id = await self.shared_room(version)
        sent = []
        for number in range(60):
            sent.append(await self.alice.send(room_id, f"k{number}"))
            if number == 20:
                self.away.kill()
        await self.away.start()
        # What a killed process held is let go of after a while.
        await self.alice.sees(room_id, await self.bob.send(room_id, "back"), within=90)
        await self.bob.sees(room_id, sent[-1], within=60)
        await self._has_all(room_id, sent)
        await self.agree(room_id, self.alice, self.bob)

    @each_version("10")
    async def test_reject_while_home_is_down(self, version: str) -> None:
        """An invite can be rejected although the server it came from is gone."""
        room_id = await self.room(version, preset="private_chat")
        await self.alice.invite(room_id, self.bob.user_id)
        await self.bob.invited(room_id)
        self.home.stop()
        try:
            await self.bob.leave(room_id)
            answer = await self.bob.ok("GET", "/sync", timeout=0)
            self.assertNotIn(room_id, answer.get("rooms", {}).get("invite", {}))
        finally:
            await self.home.start()

    async def test_killed_while_joining(self) -> None:
        """The joining server is killed in the middle; the user joins again, and both agree.

        In rooms of two versions at the same time.
        """
        for delay in (0.02, 0.1, 0.3):
            rooms = [await self.room("10"), await self.room("12")]
            carol = await self.away.register("carol")
            joining = [
                Deferred.fromCoroutine(carol.join(room_id, self.home.name)) for room_id in rooms
            ]
            for each in joining:
                each.addErrback(lambda _: None)
            await pause(delay)
            self.away.kill()
            for each in joining:
                await each
            await self.away.start()
            for room_id in rooms:
                await carol.join(room_id, self.home.name)
                await self.alice.sees_member(room_id, carol.user_id, "join")
                await self.agree(room_id, self.alice, carol)
                await carol.sees(room_id, await self.alice.send(room_id))

    @each_version("10")
    async def test_killed_while_catching_up(self, version: str) -> None:
        """1,000 events while the other server was down; it is killed while it catches up."""
        room_id = await self.shared_room(version)
        self.away.stop()
        sent = [await self.alice.send(room_id, f"c{number}") for number in range(1000)]
        await self.away.start()
        await pause(1)
        self.away.kill()
        await self.away.start()
        await self.alice.sees(room_id, await self.bob.send(room_id, "back"), within=90)
        await self.bob.sees(room_id, sent[-1], within=200)
        await self._has_all(room_id, sent, within=120)
        await self.agree(room_id, self.alice, self.bob)
