"""A server on which users do things at random, and what is remembered of it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.property.sync_client import Habits, ModelClient
from tests.property.sync_truth import RoomLog, read_logs
from tests.support.server import TestServer, User

Json = dict[str, Any]
NAMES = ("alice", "bob", "carol", "dave")
PRESETS = ("public_chat", "private_chat", "trusted_private_chat")
VISIBILITIES = ("world_readable", "shared", "invited", "joined")
JOIN_RULES = ("public", "invite", "knock")
LIMITS = (1, 1, 2, 3, 5, 10, 20, 100)

LAX = {"state_default": 0, "events_default": 0, "events": {}, "invite": 0, "kick": 0, "ban": 0}


def some_habits(rng: random.Random, user_ids: list[str]) -> Habits:
    """How one client syncs."""
    timeline: Json = rng.choice(
        [
            {},
            {},
            {},
            {"types": ["m.room.message"]},
            {"types": ["m.room.member", "org.test.state"]},
            {"not_types": ["m.room.name", "m.room.topic", "org.test.state"]},
            {"not_senders": [rng.choice(user_ids)]},
        ]
    )
    return Habits(
        state_after=rng.random() < 0.35,
        lazy=rng.random() < 0.4,
        redundant=rng.random() < 0.2,
        by_thread=rng.random() < 0.4,
        include_leave=rng.random() < 0.3,
        timeline=timeline,
    )


class World:
    """Users, their clients, and what was done."""

    def __init__(self, server: TestServer, rng: random.Random) -> None:
        self.server = server
        self.rng = rng
        self.max_rooms = 4
        self.users: list[User] = []
        self.clients: list[ModelClient] = []
        self.done: list[str] = []
        self.logs: dict[str, RoomLog] = {}
        self.kinds: dict[str, tuple[int, str | None, set[str]]] = {}
        """Of events that users sent: their class, thread, and whom they mention."""
        self.receipts: dict[tuple[str, str, str, str | None], str] = {}
        """By room, user, type and thread."""
        self.account: dict[tuple[str, str | None, str], Json] = {}
        """By user, room and type."""
        self.ignored_ever: dict[str, set[str]] = {}
        self.forgotten: set[tuple[str, str]] = set()
        self._numbers = itertools.count(1)
        self._operations: list[tuple[int, Callable[[User, str], Any]]] = [
            (26, self._send),
            (8, self._reply),
            (5, self._join),
            (3, self._leave),
            (5, self._invite),
            (4, self._expel),
            (3, self._knock),
            (2, self._forget),
            (5, self._redact),
            (12, self._set_state),
            (3, self._change_rules),
            (3, self._rename_member),
            (8, self._read),
            (3, self._set_account_data),
            (2, self._tag),
            (1, self._ignore),
        ]

    async def populate(self, clients: int) -> None:
        """Register users and log their clients in."""
        self.users = [await self.server.register(name) for name in NAMES]
        user_ids = [user.user_id for user in self.users]
        for number in range(clients):
            user = self.users[number % len(self.users)]
            status, answer = await self.server.client.post(
                "/_matrix/client/v3/login",
                {
                    "type": "m.login.password",
                    "identifier": {"type": "m.id.user", "user": user.user_id},
                    "password": "wonderland",
                },
            )
            assert status == 200, answer
            login = User(self.server, user.user_id, answer["access_token"], answer["device_id"])
            habits = Habits() if number < 2 else some_habits(self.rng, user_ids)
            self.clients.append(ModelClient(login, habits))

    async def refresh(self) -> None:
        """Read the rooms from the database."""
        self.logs = await self.server.homeserver.db.read(read_logs)

    async def step(self) -> None:
        """Somebody does something."""
        rng = self.rng
        user = rng.choice(self.users)
        if not self.logs or (len(self.logs) < self.max_rooms and rng.random() < 0.08):
            await self._create(user)
        else:
            room_id = rng.choice(sorted(self.logs, key=lambda name: self.logs[name].nid))
            weights = [weight for weight, _ in self._operations]
            _, operation = rng.choices(self._operations, weights)[0]
            await operation(user, room_id)
        await self.refresh()

    async def call(self, user: User, method: str, path: str, body: Json) -> Json | None:
        """Make a request; None if it was refused."""
        status, answer = await user.call(method, path, body)
        self.done.append(f"{user.user_id} {method} {path} {body} -> {status} {answer}")
        assert status < 500, self.done[-1]
        return answer if status == 200 else None

    def _other(self) -> str:
        return self.rng.choice(self.users).user_id

    def _event(self, room_id: str, newest: int = 25) -> str:
        return self.rng.choice(self.logs[room_id].entries[-newest:]).event_id

    def _member(self, room_id: str, user: User) -> User:
        """Mostly somebody who is in the room."""
        inside = self.logs[room_id].members("join")
        if user.user_id in inside or not inside or self.rng.random() < 0.1:
            return user
        chosen = self.rng.choice(sorted(inside))
        return next(item for item in self.users if item.user_id == chosen)

    async def _create(self, user: User) -> None:
        rng = self.rng
        body: Json = {"preset": rng.choice(PRESETS), "room_version": rng.choice(["9", "11", "12"])}
        if rng.random() < 0.6:
            body["power_level_content_override"] = LAX
        if rng.random() < 0.5:
            body["name"] = "Tea"
        if rng.random() < 0.5:
            body["invite"] = [n for n in {self._other(), self._other()} if n != user.user_id]
            body["invite"].sort()
            body["is_direct"] = rng.random() < 0.3
        if rng.random() < 0.6:
            content = {"history_visibility": rng.choice(VISIBILITIES)}
            body["initial_state"] = [{"type": "m.room.history_visibility", "content": content}]
        assert await self.call(user, "POST", "/createRoom", body), self.done[-1]

    async def _put_event(self, user: User, room_id: str, event_type: str, content: Json) -> Any:
        path = f"/rooms/{quote(room_id)}/send/{event_type}/m{next(self._numbers)}"
        return await self.call(user, "PUT", path, content)

    async def _send(self, user: User, room_id: str) -> None:
        user = self._member(room_id, user)
        rng = self.rng
        content: Json = {"msgtype": "m.text", "body": f"text {next(self._numbers)}"}
        loudness, mentioned = 1, set()
        if rng.random() < 0.15:
            content["msgtype"] = "m.notice"
            loudness = 0
        elif rng.random() < 0.2:
            mentioned = {self._other()}
            content["m.mentions"] = {"user_ids": sorted(mentioned)}
        for _ in range(rng.choice([1, 1, 1, 1, 4])):
            answer = await self._put_event(user, room_id, "m.room.message", content)
            if answer:
                inside = mentioned & self.logs[room_id].members("join")
                self.kinds[answer["event_id"]] = (loudness, None, inside)

    async def _reply(self, user: User, room_id: str) -> None:
        """In a thread, or with a reaction."""
        user = self._member(room_id, user)
        roots = {thread for _, thread, _ in self.kinds.values() if thread}
        here = [name for name in sorted(roots) if name in self.logs[room_id].by_id]
        root = self.rng.choice(here) if here and self.rng.random() < 0.7 else self._event(room_id)
        if self.kinds.get(root, (0, None, set()))[1] is not None:
            return
        relation = {"event_id": root, "rel_type": "m.thread"}
        if self.rng.random() < 0.3:
            relation = {"event_id": root, "rel_type": "m.annotation", "key": str(self.rng.random())}
            await self._put_event(user, room_id, "m.reaction", {"m.relates_to": relation})
            return
        content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation}
        answer = await self._put_event(user, room_id, "m.room.message", content)
        if answer:
            self.kinds[answer["event_id"]] = (1, root, set())

    async def _join(self, user: User, room_id: str) -> None:
        if await self.call(user, "POST", f"/join/{quote(room_id)}", {}):
            self.forgotten.discard((room_id, user.user_id))

    async def _leave(self, user: User, room_id: str) -> None:
        await self.call(user, "POST", f"/rooms/{quote(room_id)}/leave", {})

    async def _invite(self, user: User, room_id: str) -> None:
        user, other = self._member(room_id, user), self._other()
        if await self.call(user, "POST", f"/rooms/{quote(room_id)}/invite", {"user_id": other}):
            self.forgotten.discard((room_id, other))

    async def _expel(self, user: User, room_id: str) -> None:
        user = self._member(room_id, user)
        how = self.rng.choice(["kick", "ban", "unban", "unban"])
        other = self._other()
        banned = sorted(self.logs[room_id].members("ban"))
        if how == "unban" and banned:
            other = self.rng.choice(banned)
        if await self.call(user, "POST", f"/rooms/{quote(room_id)}/{how}", {"user_id": other}):
            self.forgotten.discard((room_id, other))

    async def _knock(self, user: User, room_id: str) -> None:
        if await self.call(user, "POST", f"/knock/{quote(room_id)}", {}):
            self.forgotten.discard((room_id, user.user_id))

    async def _forget(self, user: User, room_id: str) -> None:
        path = f"/rooms/{quote(room_id)}/forget"
        if await self.call(user, "POST", path, {}) is not None:
            self.forgotten.add((room_id, user.user_id))

    async def _redact(self, user: User, room_id: str) -> None:
        user = self._member(room_id, user)
        path = f"/rooms/{quote(room_id)}/redact/{quote(self._event(room_id))}"
        await self.call(user, "PUT", f"{path}/r{next(self._numbers)}", {})

    async def _put_state(
        self, user: User, room_id: str, event_type: str, content: Json, key: str = ""
    ) -> None:
        user = self._member(room_id, user)
        path = f"/rooms/{quote(room_id)}/state/{event_type}/{quote(key)}"
        await self.call(user, "PUT", path, content)

    async def _set_state(self, user: User, room_id: str) -> None:
        text = str(self.rng.randrange(3))
        choice = self.rng.randrange(4)
        if choice == 0:
            await self._put_state(
                user, room_id, "m.room.name", {"name": "" if text == "0" else text}
            )
        elif choice == 1:
            await self._put_state(user, room_id, "m.room.topic", {"topic": text})
        else:
            key = self.rng.choice(["", "a", "b"])
            await self._put_state(user, room_id, "org.test.state", {"n": text}, key)

    async def _change_rules(self, user: User, room_id: str) -> None:
        kind = self.rng.randrange(3)
        if kind == 0:
            value = self.rng.choice(VISIBILITIES)
            content: Json = {"history_visibility": value}
            await self._put_state(user, room_id, "m.room.history_visibility", content)
        elif kind == 1:
            content = {"join_rule": self.rng.choice(JOIN_RULES)}
            await self._put_state(user, room_id, "m.room.join_rules", content)
        else:
            log = self.logs[room_id]
            old = log.state.get(("m.room.power_levels", ""))
            creators = {entry.sender for entry in log.entries[:1]}
            users = dict(old.content.get("users", {})) if old else {}
            other = self._other()
            if other not in creators:
                users[other] = self.rng.choice([0, 50, 100])
            content = {**(old.content if old else {}), "users": users}
            await self._put_state(user, room_id, "m.room.power_levels", content)

    async def _rename_member(self, user: User, room_id: str) -> None:
        name = f"Name {self.rng.randrange(4)}"
        if self.rng.random() < 0.6:
            path = f"/profile/{quote(user.user_id)}/displayname"
            await self.call(user, "PUT", path, {"displayname": name})
            return
        user = self._member(room_id, user)
        content = {"membership": "join", "displayname": name}
        await self._put_state(user, room_id, "m.room.member", content, user.user_id)

    async def _read(self, user: User, room_id: str) -> None:
        user = self._member(room_id, user)
        event_id = self._event(room_id, 12)
        kind = self.rng.choice(["m.read", "m.read", "m.read.private"])
        thread: str | None = None
        if self.rng.random() < 0.4:
            thread = self.kinds.get(event_id, (0, None, set()))[1] or "main"
        body = {} if thread is None else {"thread_id": thread}
        path = f"/rooms/{quote(room_id)}/receipt/{kind}/{quote(event_id)}"
        if await self.call(user, "POST", path, body) is not None:
            log = self.logs[room_id]
            key = (room_id, user.user_id, kind, thread)
            old = self.receipts.get(key)
            if old is None or log.by_id[old].pos < log.by_id[event_id].pos:
                self.receipts[key] = event_id

    async def _set_account_data(self, user: User, room_id: str) -> None:
        name = f"org.test.{self.rng.randrange(2)}"
        content = {"n": next(self._numbers)}
        where = "" if self.rng.random() < 0.5 else f"/rooms/{quote(room_id)}"
        path = f"/user/{quote(user.user_id)}{where}/account_data/{name}"
        if await self.call(user, "PUT", path, content) is not None:
            self.account[user.user_id, room_id if where else None, name] = content

    async def _tag(self, user: User, room_id: str) -> None:
        tag = f"u.{self.rng.randrange(2)}"
        path = f"/user/{quote(user.user_id)}/rooms/{quote(room_id)}/tags/{tag}"
        method = self.rng.choice(["PUT", "PUT", "DELETE"])
        key = (user.user_id, room_id, "m.tag")
        if await self.call(user, method, path, {"order": 0.5}) is not None:
            tags = dict(self.account.get(key, {}).get("tags", {}))
            if method == "PUT":
                tags[tag] = {"order": 0.5}
            elif tag not in tags:
                return
            else:
                del tags[tag]
            self.account[key] = {"tags": tags}

    async def _ignore(self, user: User, room_id: str) -> None:
        names = {self._other()} if self.rng.random() < 0.5 else set()
        content: Json = {"ignored_users": {name: {} for name in sorted(names)}}
        path = f"/user/{quote(user.user_id)}/account_data/m.ignored_user_list"
        assert await self.call(user, "PUT", path, content) is not None
        self.account[user.user_id, None, "m.ignored_user_list"] = content
        self.ignored_ever.setdefault(user.user_id, set()).update(names - {user.user_id})
