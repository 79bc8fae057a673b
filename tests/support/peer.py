"""A remote homeserver by script, honest or hostile: `Peer`. It shares no service with Hearth.

    (hearth,) = federation = await make_federation(self, 1)
    peer = await make_peer(self, federation)
    room = await peer.join(hearth.name, room_id)        # a PeerRoom
    event = room.message(peer.user("mallory"))
    await peer.send(hearth.name, [event])
    peer.on["missing"] = lambda request: {"events": [{"rubbish": True}]}

`peer.on` replaces the answer of an endpoint (names: `peer_http.ENDPOINTS`): a handler is given
the `Received` and returns JSON, a `Reply`, or None for 404. Without one the peer answers from its
model of the rooms. What it received is in `requests`, `pdus` and `edus`.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlencode

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase
from twisted.web.server import Site

from homeserver.core import canonical
from homeserver.core.event import Event
from homeserver.core.room_versions import ROOM_VERSIONS
from homeserver.core.signing import (
    SigningKey,
    encode_base64,
    generate_signing_key,
    sign_event,
    sign_json,
)
from homeserver.core.types import JsonObject
from tests.support.federation import Federation
from tests.support.network import Network, reactor, server_tls
from tests.support.peer_http import (
    Answer,
    Handler,
    PeerClient,
    PeerResource,
    Received,
    Reply,
)
from tests.support.peer_room import PeerRoom
from tests.support.services import free_port

__all__ = ["Peer", "PeerRoom", "Received", "Reply", "make_peer"]

_DAY_MS = 24 * 3600 * 1000
_txns = itertools.count(1)


class Peer:
    """One scripted server. `name` is its server name, `key` what it signs with."""

    def __init__(self, network: Network) -> None:
        self.port = free_port()
        self.name = f"localhost:{self.port}"
        self.network = network
        network.add(self.name, self.port)
        self.key = generate_signing_key("peer", secrets.token_bytes(32))
        self.rooms: dict[str, PeerRoom] = {}
        self.on: dict[str, Handler] = {}
        self.requests: list[Received] = []
        self.edus: list[JsonObject] = []
        self.pdus: list[JsonObject] = []
        self.clock_offset_ms = 0
        self._client = PeerClient(network.reactor_of(self.name))
        self._resource = PeerResource(self._answer)
        self._listening: Any = None

    def user(self, localpart: str = "mallory") -> str:
        return f"@{localpart}:{self.name}"

    @property
    def faults(self) -> list[BaseException]:
        """What the script raised while answering."""
        return self._resource.faults

    def listen(self) -> None:
        site = Site(self._resource)
        site.noisy = False
        self._listening = reactor.listenSSL(self.port, site, server_tls(), interface="127.0.0.1")

    async def close(self) -> None:
        """Listen no more: nobody reaches the peer; it still sends. `listen` undoes it."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await maybeDeferred(listening.stopListening)

    async def stop(self) -> None:
        await self.close()
        await self._resource.stop()
        await self._client.close()

    def received(self, name: str) -> list[Received]:
        """The requests to one endpoint."""
        return [request for request in self.requests if request.name == name]

    # Asking

    async def request(
        self,
        method: str,
        destination: str,
        path: str,
        body: JsonObject | None = None,
        *,
        query: dict[str, Any] | None = None,
        origin: str | None = None,
        key: SigningKey | None = None,
        meant_for: str | None = None,
        signed: bool = True,
    ) -> tuple[int, Any]:
        """(status, answer) of a request; `origin`, `key`, `meant_for` replace what is signed."""
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        content = b"" if body is None else canonical.encode_lenient(body)
        headers = {"Content-Type": "application/json"} if content else {}
        if signed:
            headers["Authorization"] = authorization(
                method,
                target,
                origin or self.name,
                meant_for or destination,
                key or self.key,
                body,
            )
        return await self._client.send(method, destination, target, headers, content)

    async def get(self, destination: str, path: str, *parts: str, **query: Any) -> tuple[int, Any]:
        """GET below /_matrix/federation; `{}` in the path are filled with encoded parts."""
        return await self.request("GET", destination, _path(path, *parts), query=query or None)

    async def put(
        self, destination: str, path: str, *parts: str, body: JsonObject
    ) -> tuple[int, Any]:
        return await self.request("PUT", destination, _path(path, *parts), body)

    async def post(
        self, destination: str, path: str, *parts: str, body: JsonObject
    ) -> tuple[int, Any]:
        return await self.request("POST", destination, _path(path, *parts), body)

    async def send(
        self,
        destination: str,
        pdus: Sequence[Event | JsonObject] = (),
        edus: Sequence[JsonObject] = (),
        *,
        txn_id: str | None = None,
        origin: str | None = None,
        **options: Any,
    ) -> tuple[int, Any]:
        """(status, answer) of a transaction; `origin` is what its body claims."""
        body: JsonObject = {
            "origin": origin or self.name,
            "origin_server_ts": self.now(),
            "pdus": [pdu.pdu if isinstance(pdu, Event) else pdu for pdu in pdus],
            "edus": list(edus),
        }
        path = _path("/v1/send/{}", txn_id or f"peer{next(_txns)}")
        return await self.request("PUT", destination, path, body, **options)

    async def sent(self, destination: str, *events: Event) -> None:
        """Send events that are to be taken without a fault."""
        status, answer = await self.send(destination, events)
        faults = [each for each in answer.get("pdus", {}).values() if each]
        assert status == 200 and not faults, (status, answer)

    async def join(
        self, destination: str, room_id: str, localpart: str = "mallory", **content: Any
    ) -> PeerRoom:
        """Join a room by way of `destination`; raises AssertionError if that fails."""
        user_id = self.user(localpart)
        status, made = await self.get(
            destination, "/v1/make_join/{}/{}", room_id, user_id, ver=list(ROOM_VERSIONS)
        )
        assert status == 200, (status, made)
        version = made.get("room_version", "1")
        room = self.rooms.get(room_id) or PeerRoom(self.name, self.key, version, room_id)
        template = {**made["event"], "origin": self.name, "origin_server_ts": self.now()}
        template["content"] = {**template["content"], **content}
        if room.version.event_format == 1:
            template["event_id"] = f"$peerjoin{next(_txns)}:{self.name}"
        join = room.signed(template)
        status, answer = await self.put(
            destination, "/v2/send_join/{}/{}", room_id, join.event_id, body=join.pdu
        )
        assert status == 200, (status, answer)
        if isinstance(answer.get("event"), dict):
            join = room.event_of(answer["event"])
        room.adopt(
            join,
            [room.event_of(pdu) for pdu in answer["state"]],
            [room.event_of(pdu) for pdu in answer["auth_chain"]],
        )
        self.rooms[room_id] = room
        return room

    def create_room(
        self, version: str = "10", localpart: str = "mallory", **options: Any
    ) -> PeerRoom:
        """A room of the peer's own, which others can join. Options as of `PeerRoom.created`."""
        room = PeerRoom.created(self.name, self.key, version, self.user(localpart), **options)
        self.rooms[room.room_id] = room
        return room

    def now(self) -> int:
        return int(time.time() * 1000) + self.clock_offset_ms

    # Answering

    def _answer(self, request: Received) -> Any:
        self.requests.append(request)
        if request.name == "send" and isinstance(request.body, dict):
            self._note(request.body)
        handler = self.on.get(request.name)
        if handler is not None:
            return handler(request)
        default = getattr(self, f"answer_{request.name}", None)
        return None if default is None else default(request)

    def _note(self, transaction: JsonObject) -> None:
        self.edus += transaction.get("edus", [])
        for pdu in transaction.get("pdus", []):
            self.pdus.append(pdu)
            room = self.rooms.get(pdu.get("room_id", ""))
            if room is not None:
                room.add(room.event_of(pdu))

    def answer_keys(self, request: Received) -> JsonObject:
        answer: JsonObject = {
            "server_name": self.name,
            "valid_until_ts": self.now() + _DAY_MS,
            "verify_keys": {self.key.key_id: {"key": self.key.public_base64}},
            "old_verify_keys": {},
        }
        return sign_json(answer, self.name, self.key)

    def answer_version(self, request: Received) -> JsonObject:
        return {"server": {"name": "Peer", "version": "1"}}

    def answer_send(self, request: Received) -> JsonObject:
        return {"pdus": {}}

    def answer_make_join(self, request: Received) -> Answer:
        return self._template(request, "join")

    def answer_make_leave(self, request: Received) -> Answer:
        return self._template(request, "leave")

    def answer_make_knock(self, request: Received) -> Answer:
        return self._template(request, "knock")

    def _template(self, request: Received, membership: str) -> Answer:
        room_id, user_id = request.parts
        room = self.rooms.get(room_id)
        if room is None:
            return None
        if membership != "leave" and room.version.identifier not in request.query.get("ver", ["1"]):
            error = {"errcode": "M_INCOMPATIBLE_ROOM_VERSION", "error": "no"}
            return Reply({**error, "room_version": room.version.identifier}, 400)
        event = room.make("m.room.member", {"membership": membership}, user_id, user_id)
        template = {k: v for k, v in event.pdu.items() if k not in ("hashes", "signatures")}
        return {"event": template, "room_version": room.version.identifier}

    def answer_send_join(self, request: Received) -> Answer:
        room = self.rooms.get(request.parts[0])
        if room is None:
            return None
        join = room.event_of(request.body)
        before = room.state_before(join.prev_event_ids)
        room.add(join)
        return {
            "origin": self.name,
            "event": join.pdu,
            "state": [room.events[each].pdu for each in before.values()],
            "auth_chain": [event.pdu for event in room.auth_chain([*before.values()])],
            "members_omitted": False,
            "servers_in_room": sorted(room.servers()),
        }

    def answer_send_leave(self, request: Received) -> Answer:
        return self._taken(request, {})

    def answer_send_knock(self, request: Received) -> Answer:
        room = self.rooms.get(request.parts[0])
        if room is None:
            return None
        return self._taken(request, {"knock_room_state": self.stripped(room)})

    def _taken(self, request: Received, answer: JsonObject) -> Answer:
        room = self.rooms.get(request.parts[0])
        if room is None:
            return None
        room.add(room.event_of(request.body))
        return answer

    def stripped(self, room: PeerRoom) -> list[JsonObject]:
        """The state that invites and knocks show."""
        shown = ("m.room.create", "m.room.join_rules", "m.room.name")
        events = [room.events[each] for (kind, _), each in room.state.items() if kind in shown]
        if room.version.room_id_is_create_hash:
            return [event.pdu for event in events]
        keys = ("type", "state_key", "sender", "content")
        return [{key: event.pdu[key] for key in keys} for event in events]

    def answer_invite(self, request: Received) -> Answer:
        version = ROOM_VERSIONS[request.body["room_version"]]
        pdu = request.body["event"]
        sign_event(pdu, version, self.name, self.key)
        return {"event": pdu}

    async def invite(self, destination: str, room: PeerRoom, user_id: str) -> Event:
        """Invite somebody into a room of the peer's; the event with both signatures, added."""
        sender = next(user for user in room.members() if user.endswith(f":{self.name}"))
        event = room.make("m.room.member", {"membership": "invite"}, sender, user_id)
        body = {
            "event": event.pdu,
            "room_version": room.version.identifier,
            "invite_room_state": self.stripped(room),
        }
        status, answer = await self.put(
            destination, "/v2/invite/{}/{}", room.room_id, event.event_id, body=body
        )
        assert status == 200, (status, answer)
        invite = room.event_of(answer["event"])
        room.add(invite)
        return invite

    def _room(self, request: Received) -> PeerRoom | None:
        return self.rooms.get(request.parts[0])

    def answer_event(self, request: Received) -> Answer:
        for room in self.rooms.values():
            event = room.events.get(request.parts[0])
            if event is not None:
                return self._transaction([event])
        return None

    def _transaction(self, events: Sequence[Event]) -> JsonObject:
        pdus = [event.pdu for event in events]
        return {"origin": self.name, "origin_server_ts": self.now(), "pdus": pdus}

    def _state_at(self, request: Received) -> tuple[list[Event], list[Event]] | None:
        room = self._room(request)
        event_id = request.query["event_id"][0]
        if room is None or event_id not in room.events:
            return None
        before = list(room.state_before(room.events[event_id].prev_event_ids).values())
        return [room.events[each] for each in before], room.auth_chain(before)

    def answer_state(self, request: Received) -> Answer:
        found = self._state_at(request)
        if found is None:
            return None
        return {"pdus": [e.pdu for e in found[0]], "auth_chain": [e.pdu for e in found[1]]}

    def answer_state_ids(self, request: Received) -> Answer:
        found = self._state_at(request)
        if found is None:
            return None
        state, chain = ([event.event_id for event in part] for part in found)
        return {"pdu_ids": state, "auth_chain_ids": chain}

    def answer_event_auth(self, request: Received) -> Answer:
        room = self._room(request)
        if room is None:
            return None
        return {"auth_chain": [event.pdu for event in room.auth_chain([request.parts[1]])]}

    def answer_backfill(self, request: Received) -> Answer:
        room = self._room(request)
        if room is None:
            return None
        limit = int(request.query["limit"][0])
        return self._transaction(room.history(request.query["v"], limit))

    def answer_missing(self, request: Received) -> Answer:
        room = self._room(request)
        if room is None:
            return None
        body = request.body
        limit = body.get("limit", 10)
        found = room.missing(body["earliest_events"], body["latest_events"], limit)
        return {"events": [event.pdu for event in found]}


def authorization(
    method: str, target: str, origin: str, destination: str, key: SigningKey, body: Any = None
) -> str:
    """The `Authorization` header of a request (Server-Server API, "Request Authentication")."""
    signed = {"method": method, "uri": target, "origin": origin, "destination": destination}
    if body is not None:
        signed["content"] = body
    signature = encode_base64(key.sign(canonical.encode_lenient(signed)))
    return (
        f'X-Matrix origin="{origin}",destination="{destination}",'
        f'key="{key.key_id}",sig="{signature}"'
    )


def _path(template: str, *parts: str) -> str:
    return "/_matrix/federation" + template.format(*(quote(part, safe="") for part in parts))


async def make_peer(test: TestCase, federation: Federation, *, listen: bool = True) -> Peer:
    """A peer that the servers of `federation` reach, stopped after the test.

    The test fails at its end if the script raised an exception while answering.
    """
    peer = Peer(federation.network)
    if listen:
        peer.listen()
    test.addCleanup(lambda: Deferred.fromCoroutine(_end(peer)))
    return peer


async def _end(peer: Peer) -> None:
    await peer.stop()
    assert not peer.faults, f"the peer's script raised {peer.faults!r}"
