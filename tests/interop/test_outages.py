"""A server is down for a while: both come to agree again."""

from __future__ import annotations

import secrets

from twisted.internet.defer import Deferred

from tests.interop.account import pause
from tests.interop.case import InteropCase, both_ways, each_version, with_versions
from tests.support.network import eventually


@both_ways(globals())
@with_versions
class Outages(InteropCase):
    @each_version("10", "12")
    async def test_away_is_down(self, version: str) -> None:
        """What the home server's user did meanwhile reaches the other one after its return."""
        room_id = await self.shared_room(version)
        content = {"while": "down"}
        self.away.stop()
        try:
            sent = [await self.alice.send(room_id, f"m{number}") for number in range(30)]
            await self.alice.set_state(room_id, "m.room.topic", {"topic": "meanwhile"})
            await self.alice.ok(
                "PUT",
                f"/sendToDevice/org.example.note/{secrets.token_hex(4)}",
                {"messages": {self.bob.user_id: {self.bob.device_id: content}}},
            )
            await pause(1)
        finally:
            await self.away.start()
        # It is heard from, which lets the other one try again at once.
        back = await self.bob.send(room_id, "back")
        await self.alice.sees(room_id, back)
        await self.bob.sees(room_id, sent[-1], within=60)

        async def has_all() -> bool:
            history = {event["event_id"] for event in await self.bob.history(room_id)}
            assert history.issuperset(sent), f"{len(set(sent) - history)} are missing"
            return True

        await eventually(has_all, within=60)
        await self.agree(room_id, self.alice, self.bob)
        await self.bob.synced(
            lambda answer: (
                content
                in [event["content"] for event in answer.get("to_device", {}).get("events", [])]
            ),
            "the message to the device",
            within=60,
        )

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

        async def has_all() -> bool:
            history = {event["event_id"] for event in await self.bob.history(room_id)}
            assert history.issuperset(sent), f"{len(set(sent) - history)} are missing"
            return True

        await eventually(has_all, within=60)
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

    @each_version("10", "12")
    async def test_killed_while_joining(self, version: str) -> None:
        """The joining server is killed in the middle; the user joins again, and both agree."""
        for delay in (0.02, 0.1, 0.3):
            room_id = await self.room(version)
            carol = await self.away.register("carol")
            joining = Deferred.fromCoroutine(carol.join(room_id, self.home.name))
            joining.addErrback(lambda _: None)
            await pause(delay)
            self.away.kill()
            await joining
            await self.away.start()
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
        await self.bob.sees(room_id, sent[-1], within=60)

        async def has_all() -> bool:
            history = {event["event_id"] for event in await self.bob.history(room_id)}
            assert history.issuperset(sent), f"{len(set(sent) - history)} are missing"
            return True

        await eventually(has_all, within=120)
        await self.agree(room_id, self.alice, self.bob)
