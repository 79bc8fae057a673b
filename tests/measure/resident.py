"""The servers that a measured server meets: one process that plays all of them.

`python -m tests.measure.resident CERTIFICATE KEY CA SERVERS` listens on as many ports of loopback
as it plays servers, prints its control port and then the names of the servers, and answers the
federation API by plain tables: what it costs is not what is measured. Events are really signed,
by the keys of their senders' servers.

Control: POST /room, /transactions, /send with JSON; see `Control`.
"""

from __future__ import annotations

import itertools
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import orjson
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from homeserver.core.auth_rules import auth_types
from homeserver.core.event import Event
from homeserver.core.signing import sign_json
from homeserver.core.types import JsonObject
from tests.support.events import RoomBuilder, test_key
from tests.support.peer import authorization
from tests.support.peer_http import BodyProducer
from tests.support.services import free_port

reactor: Any = installed_reactor
_numbers = itertools.count(1)
_DAY_MS = 24 * 3600 * 1000


class ResidentRoom:
    """A room that other servers keep. Its members are spread evenly over them.

    It ends with a message, so that the state before and after its head is the same.
    """

    def __init__(self, servers: list[str], members: int, version: str) -> None:
        creator = f"@creator:{servers[0]}"
        stem = f"!{members}-{next(_numbers)}:{servers[0]}"
        room = RoomBuilder.started(version, creator=creator, sign=True, room_id=stem)
        room.set_state("m.room.history_visibility", {"history_visibility": "shared"})
        room.set_state("m.room.name", {"name": f"{members} members"})
        for number in range(members - 1):
            user = f"@user{number:05}:{servers[number % len(servers)]}"
            picture = f"mxc://{servers[number % len(servers)]}/avatar{number:018}"
            room.join(user, {"displayname": f"User Number {number}", "avatar_url": picture})
        self.head = room.message(creator)
        self.builder = room
        self.servers = servers
        self._encode()

    def _encode(self) -> None:
        state = list(self.builder.state.values())
        partial = [event for event in state if event.type != "m.room.member"]
        self.state = _joined(state)
        self.chain = _joined(self._chain(state))
        self.partial = _joined(partial)
        self.partial_chain = _joined(self._chain(partial))
        self.state_ids = orjson.dumps(
            {
                "pdu_ids": [event.event_id for event in state],
                "auth_chain_ids": [event.event_id for event in self._chain(state)],
            }
        )

    def _chain(self, of: list[Event]) -> list[Event]:
        found: dict[str, Event] = {}
        waiting = [name for event in of for name in event.auth_event_ids]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found[name] = self.builder.events[name]
                waiting += found[name].auth_event_ids
        return list(found.values())

    def template(self, user_id: str) -> JsonObject:
        """A join to be signed."""
        builder, content = self.builder, {"membership": "join"}
        wanted = auth_types("m.room.member", user_id, user_id, content, builder.version)
        auth = [builder.state[key].event_id for key in sorted(wanted) if key in builder.state]
        return {
            "type": "m.room.member",
            "room_id": builder.room_id,
            "sender": user_id,
            "state_key": user_id,
            "content": content,
            "depth": builder.events[builder.heads[0]].depth + 1,
            "prev_events": builder.heads,
            "auth_events": auth,
            "origin_server_ts": int(time.time() * 1000),
        }

    def joined(self, pdu: JsonObject, omit_members: bool) -> bytes:
        """The answer to send_join; the room goes on after the join."""
        event = Event.from_pdu(pdu, self.builder.version)
        self.builder.events[event.event_id] = event
        self.builder.append(event)
        state, chain = (
            (self.partial, self.partial_chain) if omit_members else (self.state, self.chain)
        )
        rest: JsonObject = {"event": pdu, "origin": self.servers[0]}
        if omit_members:
            rest |= {"members_omitted": True, "servers_in_room": self.servers}
        return b'{"state":[%b],"auth_chain":[%b],%b' % (state, chain, orjson.dumps(rest)[1:])

    def missing(self, asked: JsonObject) -> list[JsonObject]:
        """The events between those that somebody has and those that came, the oldest first."""
        events, known = self.builder.events, set(asked["earliest_events"])
        found: dict[str, Event] = {}
        waiting = [name for end in asked["latest_events"] for name in events[end].prev_event_ids]
        while waiting and len(found) < asked.get("limit", 10):
            name = waiting.pop(0)
            if name not in found and name not in known:
                found[name] = events[name]
                waiting += events[name].prev_event_ids
        return [event.pdu for event in sorted(found.values(), key=lambda event: event.depth)]

    def messages(self, count: int) -> list[bytes]:
        """So many messages one after the other."""
        creator = self.builder.creator
        return [
            orjson.dumps(self.builder.message(creator, f"message {number}").pdu)
            for number in range(count)
        ]


def _joined(events: list[Event]) -> bytes:
    return b",".join(orjson.dumps(event.pdu) for event in events)


class Residents:
    """The servers, their rooms, and what they answer."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.rooms: dict[str, ResidentRoom] = {}
        self.sent = 0

    def room_with(self, event_id: str) -> ResidentRoom | None:
        rooms = self.rooms.values()
        return next((room for room in rooms if event_id in room.builder.events), None)

    def keys(self, name: str) -> bytes:
        key = test_key(name)
        public = {key.key_id: {"key": key.public_base64}}
        valid_until = int(time.time() * 1000) + _DAY_MS
        answer = {
            "server_name": name,
            "verify_keys": public,
            "old_verify_keys": {},
            "valid_until_ts": valid_until,
        }
        return orjson.dumps(sign_json(answer, name, key))

    def answer(self, name: str, target: str, read: Callable[[], bytes]) -> bytes | None:
        """None: not found."""
        path = urlsplit(target)
        parts = [unquote(part) for part in path.path.split("/")[2:]]
        if parts[0] == "key":
            return self.keys(name)
        call, arguments = parts[2], parts[3:]
        if call == "send":
            self.sent += 1
            pdus = orjson.loads(read()).get("pdus", [])
            return orjson.dumps({"pdus": {pdu["hashes"]["sha256"]: {} for pdu in pdus}})
        if call == "version":
            return b'{"server":{"name":"measuring","version":"1"}}'
        room = self.rooms.get(arguments[0]) if arguments else None
        if call == "event":
            room = self.room_with(arguments[0])
        if room is None:
            return None
        return self._of_room(room, call, arguments, path.query, read)

    def _of_room(
        self, room: ResidentRoom, call: str, arguments: list[str], query: str, read: Any
    ) -> bytes | None:
        origin, now = self.names[0], int(time.time() * 1000)
        if call == "make_join":
            version = room.builder.version.identifier
            return orjson.dumps({"room_version": version, "event": room.template(arguments[1])})
        if call == "send_join":
            return room.joined(orjson.loads(read()), "omit_members=true" in query)
        if call == "state":
            return b'{"pdus":[%b],"auth_chain":[%b]}' % (room.state, room.chain)
        if call == "state_ids":
            return room.state_ids
        if call == "get_missing_events":
            return orjson.dumps({"events": room.missing(orjson.loads(read()))})
        if call == "event_auth":
            return b'{"auth_chain":[%b]}' % room.chain
        pdus = [room.head.pdu]
        if call == "event":
            pdus = [room.builder.events[arguments[0]].pdu]
        elif call != "backfill":
            return None
        return orjson.dumps({"origin": origin, "origin_server_ts": now, "pdus": pdus})


class Federation(Resource):
    """The door of one server."""

    isLeaf = True

    def __init__(self, residents: Residents, name: str) -> None:
        super().__init__()
        self._residents = residents
        self._name = name

    def render(self, request: Any) -> bytes:
        target = request.uri.decode("ascii")
        request.setHeader(b"content-type", b"application/json")
        answer = self._residents.answer(self._name, target, request.content.read)
        if answer is None:
            request.setResponseCode(404)
            answer = b'{"errcode":"M_NOT_FOUND","error":"not there"}'
        return answer


class Control(Resource):
    """What the measurement wants done.

    /room {members, version} → {room_id}; /transactions {room_id, count, size}: prepares;
    /send {destination} → {seconds}: sends the next that is prepared;
    /stats → {sent}: transactions that arrived.
    """

    isLeaf = True

    def __init__(self, residents: Residents, ca: bytes) -> None:
        super().__init__()
        self._residents = residents
        trust: Any = Certificate
        policy = BrowserLikePolicyForHTTPS(trustRoot=trust.loadPEM(ca))
        self._agent = Agent(reactor, policy, pool=HTTPConnectionPool(reactor))
        self._prepared: list[bytes] = []

    def render(self, request: Any) -> int:
        body = orjson.loads(request.content.read() or b"{}")
        work: Any = getattr(self, "do_" + request.path.decode("ascii")[1:])

        async def run() -> None:
            try:
                answer = await work(**body)
            except Exception as error:
                answer = {"error": repr(error)}
            data = orjson.dumps(answer)
            request.setHeader(b"content-length", str(len(data)).encode())
            request.write(data)
            request.finish()

        Deferred.fromCoroutine(run())
        return NOT_DONE_YET

    async def do_room(self, members: int, version: str) -> JsonObject:
        room = ResidentRoom(self._residents.names, members, version)
        self._residents.rooms[room.builder.room_id] = room
        return {"room_id": room.builder.room_id}

    async def do_transactions(self, room_id: str, count: int, size: int) -> JsonObject:
        pdus = self._residents.rooms[room_id].messages(count * size)
        origin = self._residents.names[0].encode()
        self._prepared = [
            b'{"edus":[],"origin":"%b","origin_server_ts":%d,"pdus":[%b]}'
            % (origin, time.time() * 1000, b",".join(pdus[start : start + size]))
            for start in range(0, len(pdus), size)
        ]
        return {"bytes": sum(map(len, self._prepared))}

    async def do_send(self, destination: str) -> JsonObject:
        origin, body = self._residents.names[0], self._prepared.pop(0)
        target = f"/_matrix/federation/v1/send/{time.time_ns()}"
        header = authorization(
            "PUT", target, origin, destination, test_key(origin), orjson.loads(body)
        )
        headers = Headers({"Authorization": [header], "Content-Type": ["application/json"]})
        url = f"https://{destination}{target}".encode()
        began = time.monotonic()
        response: Any = await cast(
            Any, self._agent.request(b"PUT", url, headers, BodyProducer(body))
        )
        answer = await self._read(response)
        seconds = time.monotonic() - began
        if response.code != 200:
            raise ValueError(f"{response.code} {answer}")
        refused = sum("error" in each for each in answer["pdus"].values())
        return {"seconds": seconds, "refused": refused}

    @staticmethod
    async def _read(response: Any) -> Any:
        with warnings.catch_warnings():
            # Twisted's own about its transport.
            warnings.simplefilter("ignore", DeprecationWarning)
            reading = cast(Any, readBody(response))
        return orjson.loads(await reading)

    async def do_stats(self) -> JsonObject:
        return {"sent": self._residents.sent}


def main(certificate: str, key: str, ca: str, servers: str) -> None:
    pair: Any = PrivateCertificate
    loaded = pair.loadPEM(Path(key).read_bytes() + Path(certificate).read_bytes())
    # Web servers that stand before homeservers let sessions be resumed.
    options: Any = CertificateOptions
    options = options(
        privateKey=loaded.privateKey.original,
        certificate=loaded.original,
        enableSessionTickets=True,
    )
    names: list[str] = []
    residents = Residents(names)
    for _ in range(int(servers)):
        port = free_port()
        names.append(f"localhost:{port}")
        site = Site(Federation(residents, names[-1]))
        site.noisy = False
        reactor.listenSSL(port, site, options, interface="127.0.0.1")
    control = Site(Control(residents, Path(ca).read_bytes()))
    control.noisy = False
    print(reactor.listenTCP(0, control, interface="127.0.0.1").getHost().port, flush=True)
    print(" ".join(names), flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
