"""A crowd that does, besides what is usual, whatever else may change what somebody is told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from tests.homeserver.sync.test_caught_up import Crowd
from tests.homeserver.sync.test_long_poll import pause

Json = dict[str, Any]
_RELATION = {"rel_type": "m.annotation", "key": "+"}


class WildCrowd(Crowd):
    """See the module. The users have power in few of the rooms: much is refused."""

    async def act(self) -> None:
        """Do something."""
        if self.chance.random() < 0.6:
            await super().act()
            return
        rare: list[Callable[[], Awaitable[object]]] = [
            self.kick,
            self.ban,
            self.unban,
            self.invite,
            self.knock,
            self.forget,
            self.upgrade,
            self.see_history,
            self.rule_joins,
            self.tag,
            self.direct,
            self.mark_read,
            self.mark_unread,
            self.read_thread,
            self.rule_pushes,
            self.follow_thread,
            self.upload_keys,
            self.claim_keys,
            self.stick,
            self.wait_and_send,
            self.make_room,
            self.nickname,
            self.redact_state,
            self.relate_to_state,
            self.send_odd,
            self.sleep,
        ]
        work = self.chance.choice(rare)
        self.done[work.__name__] += 1
        await work()

    def _two(self) -> tuple[Any, str, str]:
        user, room = self._who()
        return user, room, self.chance.choice(self.users).user_id

    async def _member(self, what: str) -> None:
        user, room, other = self._two()
        await user.call("POST", f"/rooms/{room}/{what}", {"user_id": other})

    async def kick(self) -> None:
        await self._member("kick")

    async def ban(self) -> None:
        await self._member("ban")

    async def unban(self) -> None:
        for user in self.users:
            for room in self.rooms:
                body = {"user_id": self.chance.choice(self.users).user_id}
                await user.call("POST", f"/rooms/{quote(room)}/unban", body)
        await self.come_back()

    async def come_back(self) -> None:
        for room in self.rooms:
            user = self.chance.choice(self.users)
            await user.call("POST", f"/join/{quote(room, safe='')}", {})

    async def invite(self) -> None:
        await self._member("invite")

    async def knock(self) -> None:
        user, room = self._who()
        await user.call("POST", f"/knock/{room}", {})

    async def forget(self) -> None:
        user, room = self._who()
        await user.call("POST", f"/rooms/{room}/leave", {})
        await user.call("POST", f"/rooms/{room}/forget", {})

    async def upgrade(self) -> None:
        if len(self.rooms) > 6 or self.chance.random() < 0.5:
            return
        user, room = self._who()
        status, answer = await user.call("POST", f"/rooms/{room}/upgrade", {"new_version": "10"})
        if status == 200:
            self.rooms.append(answer["replacement_room"])
            for other in self.users:
                await other.call("POST", f"/join/{quote(answer['replacement_room'])}", {})

    async def _set(self, kind: str, content: Json) -> None:
        room = quote(self.chance.choice(self.rooms))
        for user in self.users:
            status, _ = await user.call("PUT", f"/rooms/{room}/state/{kind}/", content)
            if status == 200:
                return

    async def see_history(self) -> None:
        value = self.chance.choice(["joined", "invited", "shared", "world_readable"])
        await self._set("m.room.history_visibility", {"history_visibility": value})

    async def rule_joins(self) -> None:
        value = self.chance.choice(["public", "public", "invite", "knock"])
        await self._set("m.room.join_rules", {"join_rule": value})

    async def tag(self) -> None:
        user, room = self._who()
        path = f"/user/{quote(user.user_id)}/rooms/{room}/tags/u.x"
        method = self.chance.choice(["PUT", "DELETE"])
        await user.call(method, path, {"order": self.chance.random()} if method == "PUT" else None)

    async def direct(self) -> None:
        user, _ = self._who()
        rooms = self.chance.sample(self.rooms, self.chance.randint(0, 2))
        path = f"/user/{quote(user.user_id)}/account_data/m.direct"
        await user.call("PUT", path, {self.users[0].user_id: rooms})

    async def mark_read(self) -> None:
        if self.sent:
            room, event_id = self.chance.choice(self.sent[-9:])
            body = {
                name: event_id
                for name in ("m.fully_read", "m.read", "m.read.private")
                if self.chance.random() < 0.5
            }
            await self.chance.choice(self.users).call("POST", f"/rooms/{room}/read_markers", body)

    async def mark_unread(self) -> None:
        user, room = self._who()
        path = f"/user/{quote(user.user_id)}/rooms/{room}/account_data/m.marked_unread"
        await user.call("PUT", path, {"unread": self.chance.random() < 0.5})

    async def read_thread(self) -> None:
        if len(self.sent) > 1:
            room, event_id = self.chance.choice(self.sent[-9:])
            _, root = self.chance.choice(self.sent[-9:])
            path = f"/rooms/{room}/receipt/m.read/{quote(event_id)}"
            await self.chance.choice(self.users).call("POST", path, {"thread_id": root})

    async def rule_pushes(self) -> None:
        user, _ = self._who()
        what = self.chance.randrange(4)
        if what == 0:
            body: Json = {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "mess*"}
            await user.call("PUT", "/pushrules/global/content/x", body)
        elif what == 1:
            await user.call("DELETE", "/pushrules/global/content/x")
        elif what == 2:
            on = {"enabled": self.chance.random() < 0.3}
            await user.call("PUT", "/pushrules/global/override/.m.rule.master/enabled", on)
        else:
            other = quote(self.chance.choice(self.users).user_id)
            actions = self.chance.choice([[], ["notify"]])
            await user.call("PUT", f"/pushrules/global/sender/{other}", {"actions": actions})

    async def follow_thread(self) -> None:
        if self.sent:
            room, event_id = self.chance.choice(self.sent[-9:])
            path = (
                "/_matrix/client/unstable/io.element.msc4306/rooms/"
                f"{room}/thread/{quote(event_id)}/subscription"
            )
            method = self.chance.choice(["PUT", "DELETE"])
            await self.chance.choice(self.users).call(method, path, {} if method == "PUT" else None)

    async def upload_keys(self) -> None:
        user, _ = self._who()
        key = {"key": "b" * 43, "signatures": {}}
        kind = self.chance.choice(["one_time_keys", "fallback_keys"])
        body = {kind: {f"signed_curve25519:k{self._number()}": key}}
        await user.call("POST", "/keys/upload", body)

    async def claim_keys(self) -> None:
        user, _ = self._who()
        other = self.chance.choice(self.users)
        body = {"one_time_keys": {other.user_id: {other.device_id: "signed_curve25519"}}}
        await user.call("POST", "/keys/claim", body)

    async def stick(self) -> None:
        user, room = self._who()
        path = f"/rooms/{room}/send/m.room.message/c{self._number()}"
        query = {"org.matrix.msc4354.sticky_duration_ms": 3_000_000}
        await user.call("PUT", path, {"msgtype": "m.text", "body": "sticky"}, query=query)

    async def wait_and_send(self) -> None:
        user, room = self._who()
        path = f"/rooms/{room}/send/m.room.message/c{self._number()}"
        query = {"org.matrix.msc4140.delay": 1}
        await user.call("PUT", path, {"msgtype": "m.text", "body": "late"}, query=query)
        for _ in range(20):
            await pause()

    async def make_room(self) -> None:
        if len(self.rooms) > 6:
            return
        user, _ = self._who()
        version = self.chance.choice(["1", "6", "9", "10", "11", "12"])
        room = await user.create_room(preset="public_chat", room_version=version)
        self.rooms.append(room)
        for other in self.users:
            await other.call("POST", f"/join/{quote(room, safe='')}", {})

    async def nickname(self) -> None:
        user, room = self._who()
        content = {"membership": "join", "displayname": str(self._number())}
        path = f"/rooms/{room}/state/m.room.member/{quote(user.user_id)}"
        await user.call("PUT", path, content)

    async def redact_state(self) -> None:
        user, room = self._who()
        status, answer = await user.call("GET", f"/rooms/{room}/state")
        if status == 200:
            event = self.chance.choice(answer)
            kinds = ("m.room.topic", "test.state", "m.room.member", "m.room.history_visibility")
            if event["type"] in kinds:
                path = f"/rooms/{room}/redact/{quote(event['event_id'])}/c{self._number()}"
                await user.call("PUT", path, {})

    async def relate_to_state(self) -> None:
        user, room = self._who()
        status, answer = await user.call("GET", f"/rooms/{room}/state")
        if status == 200:
            event_id = self.chance.choice(answer)["event_id"]
            content = {"m.relates_to": {"event_id": event_id, **_RELATION}}
            path = f"/rooms/{room}/send/m.reaction/c{self._number()}"
            await user.call("PUT", path, content)

    async def send_odd(self) -> None:
        """What is hard to put into JSON, or relates to something odd."""
        contents: list[Json] = [
            {},
            {"m.relates_to": None},
            {"m.relates_to": {"rel_type": 1, "event_id": []}},
            {"m.relates_to": {"rel_type": "m.thread", "event_id": "$nowhere"}},
            {"m.relates_to": {"m.in_reply_to": {"event_id": "$nowhere"}}},
            {"m.mentions": {"user_ids": "all", "room": 1}},
            {"body": '\u2028\u0000\U0001f600\ud7ff"\\', "unsigned": {"age": 1}},
            {"body": ["@room"], "msgtype": 3},
            {"m.new_content": {}, "m.relates_to": {"rel_type": "m.replace", "event_id": "$x"}},
            {"membership": "join", "redacts": "$x", "number": 2**53 - 1},
        ]
        kinds = ["m.room.message", "m.room.encrypted", "m.room.redaction", "x y/ü", "m.sticker"]
        user, room = self._who()
        path = f"/rooms/{room}/send/{quote(self.chance.choice(kinds), safe='')}/c{self._number()}"
        await user.call("PUT", path, self.chance.choice(contents))

    async def sleep(self) -> None:
        """Nothing."""
