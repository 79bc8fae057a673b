"""The functions whose cost is guarded, on inputs that never change.

Each entry of `FUNCTIONS` makes its input and gives a function without parameters, which does the
same each time that it is called.
"""

from __future__ import annotations

from homeserver.core import auth_rules, canonical, push_rules, signing, state_res, state_tree
from homeserver.core.client_format import to_client
from homeserver.core.event import Event
from homeserver.core.event_format import check_pdu
from homeserver.core.filters import parse_filter
from homeserver.core.power_levels import PowerLevels
from homeserver.core.push_conditions import PushEvent
from homeserver.web.http_head import Head, HttpLimits
from homeserver.web.routes import RouteTable
from tests.guards.guarded import INTERPRETER, REFERENCE, Guarded, Work
from tests.guards.request import whole_request
from tests.support.events import ALICE, BOB, CAROL, RoomBuilder, test_key


def _room(members: int = 8) -> RoomBuilder:
    users = [f"@user{number}:a.example" for number in range(members)]
    return RoomBuilder.started("11", members=[*users, BOB, CAROL], users={BOB: 50})


def _message(room: RoomBuilder) -> Event:
    room.sign = True
    return room.message(BOB, "Four score and seven years ago our fathers brought forth" * 3)


def _canonical_encoding() -> Work:
    pdu = _message(_room()).pdu
    return lambda: canonical.encode(pdu)


def _signing() -> Work:
    room = _room()
    pdu, key = dict(_message(room).pdu), test_key("b.example")

    def work() -> object:
        again = {k: v for k, v in pdu.items() if k not in ("hashes", "signatures")}
        signing.hash_and_sign_event(again, room.version, "b.example", key)
        return again

    return work


def _verifying() -> Work:
    room = _room()
    pdu = dict(_message(room).pdu)
    message = signing.redacted_message(pdu, room.version)
    key = test_key("b.example").verify_key
    signature = signing.decode_base64(pdu["signatures"]["b.example"]["ed25519:test"])
    return lambda: key.verify(message, signature)


def _event_parsing() -> Work:
    room = _room()
    event = _message(room)
    text, event_id = event.to_json(), event.event_id

    def work() -> object:
        parsed = Event.from_json(text, room.version, event_id)
        return parsed.type, parsed.sender, parsed.prev_event_ids, parsed.content

    return work


def _pdu_check() -> Work:
    room = _room()
    pdu = dict(_message(room).pdu)
    return lambda: check_pdu(pdu, room.version)


def _event_id() -> Work:
    room = _room()
    pdu = dict(_message(room).pdu)
    return lambda: (
        signing.content_hash_matches(pdu, room.version),
        signing.event_id_for(pdu, room.version),
    )


def _auth_of_message() -> Work:
    room = _room()
    event, state = _message(room), dict(room.state)
    return lambda: auth_rules.check(event, state)


def _auth_of_join() -> Work:
    room = _room()
    state = dict(room.state)
    event = room.join("@new:a.example")
    return lambda: auth_rules.check(event, state)


def _power_levels() -> Work:
    room = _room()
    current, create = room.state["m.room.power_levels", ""], room.create

    def work() -> object:
        power = PowerLevels.of(current, create)
        return (
            power.user_level(ALICE),
            power.user_level(CAROL),
            power.event_level("m.room.name", True),
            power.event_level("m.room.message", False),
            power.invite,
        )

    return work


def _client_format() -> Work:
    event = _message(_room())
    return lambda: canonical.encode_plain(
        to_client(event, now_ms=1_800_000_000_000, room_id=False, membership="join")
    )


def _push_event() -> PushEvent:
    fields = to_client(_message(_room()))
    return PushEvent(fields, member_count=22, sender_power_level=50)


def _push_rules() -> Work:
    event, rules = _push_event(), push_rules.Ruleset(ALICE)
    return lambda: rules.evaluate(event, "Alice")


def _push_class() -> Work:
    event = _push_event()
    return lambda: (push_rules.event_class(event), push_rules.highlighted_users(event))


def _tree() -> tuple[bytes, dict[bytes, bytes]]:
    return state_tree.build({number * 7919: number for number in range(1000)})


def _tree_set() -> Work:
    root, nodes = _tree()
    changes: dict[int, int | None] = {7919 * 500: 1, 4: 2}

    def load(hashes: object) -> dict[bytes, bytes]:
        return nodes

    return lambda: state_tree.update(root, changes, load)


def _tree_difference() -> Work:
    root, nodes = _tree()
    changes: dict[int, int | None] = {7919 * number: 0 for number in range(10, 60, 10)}
    other, more = state_tree.update(root, changes, lambda hashes: nodes)
    nodes.update(more)
    return lambda: state_tree.diff(root, other, lambda hashes: nodes)


def _resolution(version: str) -> Work:
    left = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 50, CAROL: 50})
    for number in range(20):
        left.join(f"@user{number}:a.example")
    right = left.fork()
    left.ban(ALICE, "@user1:a.example")
    left.set_state("m.room.name", {"name": "left"}, BOB)
    right.set_state("m.room.name", {"name": "right"}, CAROL)
    right.power_levels(users={ALICE: 100, BOB: 0} if version != "12" else {BOB: 0})
    right.set_state("m.room.topic", {"topic": "x"}, ALICE)
    states = [left.state_ids, right.state_ids]
    return lambda: state_res.resolve(states, left.events.get, left.version)


_HEAD = (
    b"PUT /_matrix/client/v3/rooms/!room%3Aa.example/send/m.room.message/m1700000.1 HTTP/1.1\r\n"
    b"Host: matrix.a.example\r\nUser-Agent: Element/1.11\r\nAccept: application/json\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nContent-Type: application/json\r\n"
    b"Authorization: Bearer 0123456789012345678901234567890123456789012\r\n"
    b"Content-Length: 40\r\n\r\n"
)


def _head() -> Work:
    limits = HttpLimits()

    def work() -> object:
        request = Head(limits).read_head(_HEAD)
        return request.method, request.path, request.headers

    return work


_TEMPLATES = (
    "GET /_matrix/client/versions",
    "GET /_matrix/client/v3/sync",
    "GET /_matrix/client/v3/account/whoami",
    "GET /_matrix/client/v3/rooms/{room_id}/messages",
    "GET /_matrix/client/v3/rooms/{room_id}/state",
    "GET /_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "GET /_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}",
    "PUT /_matrix/client/v3/rooms/{room_id}/send/{event_type}/{txn_id}",
    "GET /_matrix/client/v3/keys/changes",
    "POST /_matrix/client/v3/keys/upload",
    "POST /_matrix/client/v3/keys/upload/{device_id}",
    "GET /_matrix/media/v3/download/{server_name}/{media_id}",
)


def _routes() -> Work:
    table: RouteTable[str] = RouteTable()
    for template in _TEMPLATES:
        method, path = template.split(" ")
        table.add(method, path, template)
    base = "/_matrix/client/v3"
    paths = (
        ("GET", f"{base}/sync"),
        ("PUT", f"{base}/rooms/!room%3Aa.example/send/m.room.message/m1700000.1"),
        ("GET", f"{base}/rooms/!room%3Aa.example/state/m.room.name/"),
    )
    return lambda: [table.find(method, path).decode() for method, path in paths]


def _filter() -> Work:
    wanted = parse_filter(
        {
            "room": {
                "timeline": {"types": ["m.room.*", "m.reaction"], "not_senders": ["@x:y"]},
                "state": {"lazy_load_members": True},
            }
        }
    ).room.timeline
    return lambda: (
        wanted.matches_event("m.room.message", ALICE, "!room:a.example"),
        wanted.matches_event("m.call.invite", ALICE, "!room:a.example"),
        wanted.matches_everything,
    )


FUNCTIONS = {
    REFERENCE: INTERPRETER,
    "canonical encoding of a message": Guarded(_canonical_encoding),
    "hashing and signing a message": Guarded(_signing, 10),
    "verifying a signature": Guarded(_verifying, 10),
    "event from JSON": Guarded(_event_parsing),
    "format check of a message": Guarded(_pdu_check),
    "content hash and event ID": Guarded(_event_id),
    "auth rules of a message": Guarded(_auth_of_message),
    "auth rules of a join": Guarded(_auth_of_join),
    "power levels": Guarded(_power_levels),
    "client format of a message": Guarded(_client_format),
    "push rules of one user": Guarded(_push_rules),
    "push class of a message": Guarded(_push_class),
    "state tree, two changes": Guarded(_tree_set, 8),
    "state tree, difference": Guarded(_tree_difference, 8),
    "state resolution, version 2": Guarded(lambda: _resolution("11"), 3),
    "state resolution, version 2.1": Guarded(lambda: _resolution("12"), 3),
    "head of a request": Guarded(_head),
    "three routes": Guarded(_routes),
    "a whole request": Guarded(whole_request),
    "filter of a timeline": Guarded(_filter),
}
