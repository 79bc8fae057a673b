"""A user of a real server, by the Client-Server API over HTTP: the same for every server."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Coroutine, Iterable
from typing import Any
from urllib.parse import quote, urlencode

import treq
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool

from tests.support.network import eventually

reactor: Any = installed_reactor
_numbers = itertools.count(1)
TIMEOUT_S = 60.0


class Refused(AssertionError):
    """A request was answered with an error."""

    def __init__(self, what: str, status: int, body: Any) -> None:
        super().__init__(f"{what} answered {status}: {body}")
        self.status = status
        self.body = body

    @property
    def errcode(self) -> str | None:
        return self.body.get("errcode") if isinstance(self.body, dict) else None


async def call(
    url: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    query: dict[str, Any] | None = None,
) -> tuple[int, Any]:
    """(status, JSON or text) of a request to the server at `url`."""
    target = f"{url}{path}" + (f"?{urlencode(query, doseq=True)}" if query else "")
    headers: Any = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None or method in ("POST", "PUT"):
        headers["Content-Type"] = "application/json"
        body = json.dumps({} if body is None else body).encode()
    # No connection outlives its request: trial wants a clean reactor.
    agent: Any = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
    asking: Any = treq.request(
        method, target, data=body, headers=headers, agent=agent, timeout=TIMEOUT_S
    )
    response = await asking
    data = await response.content()
    await deferLater(reactor, 0, lambda: None)
    try:
        return response.code, json.loads(data)
    except ValueError:
        return response.code, data.decode("utf-8", "replace")


class Account:
    """A logged-in user. Methods raise `Refused` when a request is."""

    def __init__(self, server: Any, answer: dict[str, Any]) -> None:
        self.server = server
        self.user_id: str = answer["user_id"]
        self.device_id: str = answer["device_id"]
        self.token: str = answer["access_token"]
        self.since: str | None = None

    @classmethod
    async def register(cls, server: Any, name: str = "user") -> Account:
        """A new user, whose localpart begins with `name`."""
        body = {
            "username": f"{name}{next(_numbers)}{secrets.token_hex(2)}",
            "password": "wonderland",
            "auth": {"type": "m.login.dummy"},
        }
        status, answer = await call(server.url, "POST", "/_matrix/client/v3/register", body)
        if status != 200:
            raise Refused("register", status, answer)
        return cls(server, answer)

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """(status, answer); paths without /_matrix are below /_matrix/client/v3."""
        full = path if path.startswith("/_matrix") else f"/_matrix/client/v3{path}"
        return await call(self.server.url, method, full, body, token=self.token, query=query)

    async def ok(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        status, answer = await self.call(method, path, body, **query)
        if status != 200:
            raise Refused(f"{method} {path} on {self.server.kind}", status, answer)
        return answer

    # Rooms

    async def create_room(self, version: str | None = None, **body: Any) -> str:
        if version is not None:
            body["room_version"] = version
        answer = await self.ok("POST", "/createRoom", body)
        room_id: str = answer["room_id"]
        return room_id

    async def join(self, room: str, *via: str) -> None:
        servers = list(via)
        await self.ok("POST", f"/join/{_q(room)}", {}, server_name=servers, via=servers)

    async def knock(self, room: str, *via: str) -> None:
        servers = list(via)
        await self.ok("POST", f"/knock/{_q(room)}", {}, server_name=servers, via=servers)

    async def leave(self, room_id: str) -> None:
        await self.ok("POST", f"/rooms/{_q(room_id)}/leave")

    async def invite(self, room_id: str, user_id: str) -> None:
        await self.ok("POST", f"/rooms/{_q(room_id)}/invite", {"user_id": user_id})

    async def kick(self, room_id: str, user_id: str) -> None:
        await self.ok("POST", f"/rooms/{_q(room_id)}/kick", {"user_id": user_id})

    async def ban(self, room_id: str, user_id: str) -> None:
        await self.ok("POST", f"/rooms/{_q(room_id)}/ban", {"user_id": user_id})

    async def unban(self, room_id: str, user_id: str) -> None:
        await self.ok("POST", f"/rooms/{_q(room_id)}/unban", {"user_id": user_id})

    async def send(
        self, room_id: str, content: Any = "hello", event_type: str = "m.room.message"
    ) -> str:
        if isinstance(content, str):
            content = {"msgtype": "m.text", "body": content}
        path = f"/rooms/{_q(room_id)}/send/{event_type}/{secrets.token_hex(6)}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def set_state(self, room_id: str, kind: str, content: Any, key: str = "") -> str:
        path = f"/rooms/{_q(room_id)}/state/{kind}/{_q(key)}"
        event_id: str = (await self.ok("PUT", path, content))["event_id"]
        return event_id

    async def redact(self, room_id: str, event_id: str) -> str:
        path = f"/rooms/{_q(room_id)}/redact/{_q(event_id)}/{secrets.token_hex(6)}"
        redaction_id: str = (await self.ok("PUT", path, {}))["event_id"]
        return redaction_id

    async def event(self, room_id: str, event_id: str) -> Any:
        return await self.ok("GET", f"/rooms/{_q(room_id)}/event/{_q(event_id)}")

    async def state_of(self, room_id: str, kind: str, key: str = "") -> Any:
        """The content of a state event; None if there is none."""
        status, answer = await self.call("GET", f"/rooms/{_q(room_id)}/state/{kind}/{_q(key)}")
        if status == 404:
            return None
        if status != 200:
            raise Refused(f"state {kind} on {self.server.kind}", status, answer)
        return answer

    async def membership(self, room_id: str, user_id: str) -> str | None:
        content = await self.state_of(room_id, "m.room.member", user_id)
        return None if content is None else content["membership"]

    async def state(self, room_id: str) -> dict[str, str]:
        """The whole current state: "type/state key" to event ID."""
        events = await self.ok("GET", f"/rooms/{_q(room_id)}/state")
        return {f"{each['type']}/{each['state_key']}": each["event_id"] for each in events}

    async def history(self, room_id: str, pages: int = 100) -> list[Any]:
        """All events that back-pagination gives, the newest first."""
        found: list[Any] = []
        token: dict[str, Any] = {}
        for _ in range(pages):
            page = await self.ok(
                "GET", f"/rooms/{_q(room_id)}/messages", dir="b", limit=100, **token
            )
            found += page["chunk"]
            if "end" not in page or page["end"] == token.get("from"):
                break
            token = {"from": page["end"]}
        return found

    async def bodies(self, room_id: str) -> list[str]:
        """The bodies of all messages that back-pagination gives, the oldest first."""
        history = await self.history(room_id)
        return [
            event["content"]["body"]
            for event in reversed(history)
            if event["type"] == "m.room.message" and "body" in event["content"]
        ]

    # Sync

    async def sync(self, timeout: int = 0, **query: Any) -> Any:
        """One /sync, which goes on where the last one ended."""
        if self.since is not None:
            query["since"] = self.since
        answer = await self.ok("GET", "/sync", timeout=timeout, **query)
        self.since = answer["next_batch"]
        return answer

    async def synced(self, condition: Any, what: str = "", within: float = 30.0) -> Any:
        """Sync until `condition(answer)` gives something true; returns that."""

        async def look() -> Any:
            return condition(await self.sync(timeout=500))

        return await eventually(look, what or f"in /sync of {self.server.kind}", within)

    async def invited(self, room_id: str) -> Any:
        """Wait for an invite; the stripped state."""
        return await self.synced(
            lambda answer: (
                answer["rooms"].get("invite", {}).get(room_id) if "rooms" in answer else None
            ),
            f"invite on {self.server.kind}",
        )

    async def sees_member(self, room_id: str, user_id: str, membership: str | None) -> None:
        """Wait for a membership in the current state."""

        async def look() -> bool:
            return await self.membership(room_id, user_id) == membership

        await eventually(look, f"{user_id} being {membership} on {self.server.kind}")

    async def sees(self, room_id: str, event_id: str, within: float = 30.0) -> Any:
        """Wait for an event; returns it."""

        async def look() -> Any:
            status, answer = await self.call("GET", f"/rooms/{_q(room_id)}/event/{_q(event_id)}")
            return answer if status == 200 else None

        return await eventually(look, f"event {event_id} on {self.server.kind}", within)

    async def sees_state(self, room_id: str, kind: str, content: Any, key: str = "") -> None:
        """Wait for a content of the current state."""

        async def look() -> bool:
            return bool(await self.state_of(room_id, kind, key) == content)

        await eventually(look, f"{kind} being {content} on {self.server.kind}")


def _q(text: str) -> str:
    return quote(text, safe="")


async def together(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run all at the same time; their results. Raises what the first that fails raises."""
    running = [Deferred.fromCoroutine(each) for each in coroutines]
    done: list[Any] = await DeferredList(running, consumeErrors=True)
    for succeeded, result in done:
        if not succeeded:
            result.raiseException()
    return [result for _, result in done]


def pause(seconds: float) -> Deferred[None]:
    """Wait."""
    return deferLater(reactor, seconds, lambda: None)
