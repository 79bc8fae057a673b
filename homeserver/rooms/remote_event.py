"""Member events that another server drafted and this server signs.

Server-Server API, "Joining Rooms": the template of make_join (make_leave, make_knock) says where in
the room's graph the event goes. Nothing else of it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from federation.client.errors import BadAnswer
from homeserver.core import event_format, signing
from homeserver.core.event import Event
from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms.build import LocalSigner

MEMBER = "m.room.member"
AUTHORISER = "join_authorised_via_users_server"


@dataclass(frozen=True, slots=True)
class WantedMember:
    """The member event that this server asked for.

    `content` is what this server says, `membership` included.
    """

    room_id: str
    user_id: str
    content: JsonObject

    @property
    def membership(self) -> str:
        found: str = self.content["membership"]
        return found


def sign_template(
    template: JsonObject,
    wanted: WantedMember,
    version: RoomVersion,
    signer: LocalSigner,
    destination: str,
    now_ms: int,
    chosen_id: str,
) -> Event:
    """The signed event that a template of `destination` leads to.

    Parameters: `chosen_id` names the event in room versions 1 and 2.

    Raises:
        BadAnswer: the template is of something else than was asked for, or makes no event.
    """
    _require_wanted(template, wanted, destination)
    pdu: dict[str, Any] = {
        "auth_events": _references(template, "auth_events", version, destination),
        "content": _content(template, wanted, version, destination),
        "depth": _depth(template, version, destination),
        "origin": signer.server_name,
        "origin_server_ts": now_ms,
        "prev_events": _references(template, "prev_events", version, destination),
        "room_id": wanted.room_id,
        "sender": wanted.user_id,
        "state_key": wanted.user_id,
        "type": MEMBER,
    }
    if not pdu["prev_events"]:
        raise BadAnswer(destination, "the template comes after no event")
    if version.event_format == 1:
        pdu["event_id"] = f"${chosen_id}:{signer.server_name}"
    try:
        signing.hash_and_sign_event(pdu, version, signer.server_name, signer.key)
        event_format.check_pdu(pdu, version)
        event_format.check_sizes(pdu)
        return Event.from_pdu(pdu, version)
    except ValueError as problem:
        raise BadAnswer(destination, f"the template makes no event: {problem}") from None


def with_signatures(event: Event, returned: JsonObject, server: str) -> JsonObject:
    """The event's federation form with the signatures of `server` that it was returned with.

    Nothing but those signatures is taken over.
    """
    return {
        **event.pdu,
        "signatures": {**event.pdu["signatures"], server: signing.signatures_of(returned, server)},
    }


def _require_wanted(template: JsonObject, wanted: WantedMember, destination: str) -> None:
    expected = {
        "type": MEMBER,
        "room_id": wanted.room_id,
        "sender": wanted.user_id,
        "state_key": wanted.user_id,
    }
    for key, value in expected.items():
        if template.get(key) != value:
            raise BadAnswer(destination, f"the template's {key} is not what was asked for")
    content = template.get("content")
    if not isinstance(content, dict) or content.get("membership") != wanted.membership:
        raise BadAnswer(destination, "the template's membership is not what was asked for")


def _content(
    template: JsonObject, wanted: WantedMember, version: RoomVersion, destination: str
) -> JsonObject:
    """What this server says, and who authorises the join: the server that was asked does."""
    content = dict(wanted.content)
    authoriser = template["content"].get(AUTHORISER)
    if authoriser is None or wanted.membership != "join" or not version.restricted_joins:
        return content
    try:
        user_id = UserID.parse(authoriser) if isinstance(authoriser, str) else None
    except InvalidIdentifier:
        user_id = None
    if user_id is None or user_id.domain != destination:
        raise BadAnswer(destination, f"{AUTHORISER} is none of its users")
    return {**content, AUTHORISER: authoriser}


def _references(
    template: JsonObject, name: str, version: RoomVersion, destination: str
) -> list[Any]:
    value: Any = template.get(name)
    limit = event_format.MAX_PREV_EVENTS if name == "prev_events" else event_format.MAX_AUTH_EVENTS
    try:
        event_format.check_references(value, name, limit, version)
    except event_format.EventFormatError as problem:
        raise BadAnswer(destination, f"the template is wrong: {problem}") from None
    return list(value)


def _depth(template: JsonObject, version: RoomVersion, destination: str) -> int:
    depth = template.get("depth")
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
        raise BadAnswer(destination, "the template's depth is not a number")
    return min(depth, version.max_depth)
