"""The authorisation rules: may this event happen in this state?

Room versions, "Authorisation rules"; server-server API, "Auth events selection". The functions
follow the numbered steps of room version 12, for all versions: a step that some versions lack is
guarded by a flag of `RoomVersion`. A return allows.

1. Rules 1, 2 and 4 to 11 depend on the event and a state: `check`. It runs against the state made
   of the event's auth events, the state before the event, and the current state.
2. Rule 3 depends on which auth events the event names: `check_auth_events`, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from homeserver.core.event import Event
from homeserver.core.ids import domain_of
from homeserver.core.membership_rules import check_member, membership_of
from homeserver.core.power_levels import PowerLevels, check_power_levels, is_user_id
from homeserver.core.rejection import EventRejected
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject, StateKey

__all__ = ["EventRejected", "auth_types", "check", "check_auth_events"]

_CREATE = ("m.room.create", "")
_POWER_LEVELS = ("m.room.power_levels", "")
_JOIN_RULES = ("m.room.join_rules", "")


def auth_types(
    event_type: str, sender: str, state_key: str | None, content: JsonObject, version: RoomVersion
) -> set[StateKey]:
    """The state that an event's `auth_events` are selected from.

    Server-server API, "Auth events selection": an event names the state event of every returned
    key that the state before it has.
    """
    if event_type == "m.room.create":
        return set()
    keys = {_POWER_LEVELS, ("m.room.member", sender)}
    if not version.room_id_is_create_hash:
        keys.add(_CREATE)
    if event_type != "m.room.member" or state_key is None:
        return keys
    if state_key != sender:
        keys.add(("m.room.member", state_key))
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        keys.add(_JOIN_RULES)
    if membership == "invite":
        token = _third_party_token(content)
        if token is not None:
            keys.add(("m.room.third_party_invite", token))
    if membership == "join" and version.restricted_joins:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            keys.add(("m.room.member", authoriser))
    return keys


def _third_party_token(content: JsonObject) -> str | None:
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def check_auth_events(
    event: Event,
    auth_events: Sequence[Event],
    is_rejected: Callable[[str], bool],
    create: Event | None,
) -> None:
    """Rules 2 and 3: does `event` name the auth events that it may name?

    `auth_events` are the events of `event.auth_event_ids`, all of them (fetching missing ones is
    the caller's task). `is_rejected` tells of an event ID whether that event was rejected.
    `create` is the room's create event, needed where it is not among the auth events. Raises
    `EventRejected`.
    """
    if event.type == "m.room.create":
        return
    version = event.version
    # 2
    if version.room_id_is_create_hash and (
        create is None or _names_another_room(event, create) or is_rejected(create.event_id)
    ):
        raise EventRejected("2", "The room ID does not name an accepted create event.")
    # 3.1, 3.2
    expected = auth_types(event.type, event.sender, event.state_key, event.content, version)
    seen: set[StateKey] = set()
    for auth_event in auth_events:
        if not auth_event.is_state or auth_event.key not in expected:
            raise EventRejected("3.2", f"{auth_event.event_id} is no auth event for this event.")
        if auth_event.key in seen:
            raise EventRejected("3.1", f"Two auth events are of type {auth_event.type}.")
        seen.add(auth_event.key)
    for auth_event in auth_events:
        # 3.3
        if is_rejected(auth_event.event_id):
            raise EventRejected("3.3", f"The auth event {auth_event.event_id} was rejected.")
    # 3.4
    if not version.room_id_is_create_hash and _CREATE not in seen:
        raise EventRejected("3.4", "The create event is not among the auth events.")
    # 3.5
    for auth_event in auth_events:
        if auth_event.room_id != event.room_id:
            raise EventRejected("3.5", f"{auth_event.event_id} belongs to another room.")


def check(
    event: Event,
    state: Mapping[StateKey, Event],
    *,
    create: Event | None = None,
    signed_by: Callable[[str], bool] | None = None,
) -> None:
    """Rules 1, 2 and 4 to 11: may `event` happen in `state`?

    Of `state` only the keys in `auth_types` of the event, the create event and the power levels
    are read; it need not hold more. `create` is the room's create event, by default the one in
    `state` (the auth events of versions 12 and up do not have it). `signed_by` tells of a server
    whether it has validly signed the event (rule 5.2); by default it is believed if the event
    bears its signature, since the signatures of a received event have been verified by now. For
    an event that this server has yet to sign, pass one that says yes to its own name. Raises
    `EventRejected`.
    """
    if event.type == "m.room.create":
        _check_create(event)
        return
    create = state.get(_CREATE) if create is None else create
    # 2
    if create is None or _names_another_room(event, create):
        raise EventRejected("2", "The state has no create event of this room.")
    # 4. Other servers take anything but true as false here, so that it has to be.
    if create.content.get("m.federate", True) is not True and (
        domain_of(event.sender) != domain_of(create.sender)
    ):
        raise EventRejected("4", "The room is closed to other servers.")
    if event.version.special_aliases_auth and event.type == "m.room.aliases":
        _check_aliases(event)
        return
    # 5
    if event.type == "m.room.member":
        check_member(event, state, create, signed_by)
        return
    current = state.get(_POWER_LEVELS)
    power = PowerLevels.of(current, create)
    # 6
    if membership_of(state, event.sender) != "join":
        raise EventRejected("6", "The sender is not in the room.")
    level = power.user_level(event.sender)
    # 7
    if event.type == "m.room.third_party_invite":
        if level < power.invite:
            raise EventRejected("7.1", "The sender may not invite.")
        return
    # 8
    required = power.event_level(event.type, event.is_state)
    if required > level:
        raise EventRejected("8", f"{event.type} needs a power level of {required}.")
    # 9
    state_key = event.state_key
    if state_key is not None and state_key.startswith("@") and state_key != event.sender:
        raise EventRejected("9", "The state key is the ID of another user.")
    # 10
    if event.type == "m.room.power_levels":
        check_power_levels(event, current, power)
    if event.version.redaction_auth_rule and event.type == "m.room.redaction":
        _check_redaction(event, power)


def _check_create(event: Event) -> None:
    """Rule 1."""
    version, content = event.version, event.content
    # 1.1
    if event.prev_event_ids:
        raise EventRejected("1.1", "A create event cannot come after other events.")
    # 1.2
    if version.room_id_is_create_hash:
        if "room_id" in event.pdu:
            raise EventRejected("1.2", "The create event has a room ID.")
    elif domain_of(event.room_id) != domain_of(event.sender):
        raise EventRejected("1.2", "The room ID is of another server than the sender.")
    # 1.3
    if "room_version" in content and not _is_known_version(content["room_version"]):
        raise EventRejected("1.3", "The room version is unknown.")
    # 1.4
    if version.creators_privileged and "additional_creators" in content:
        additional = content["additional_creators"]
        if not isinstance(additional, list) or not all(map(is_user_id, additional)):
            raise EventRejected("1.4", "additional_creators is not a list of user IDs.")
    if not version.implicit_room_creator and "creator" not in content:
        raise EventRejected("v10/1.4", "The create event names no creator.")


def _is_known_version(value: Any) -> bool:
    return isinstance(value, str) and value in ROOM_VERSIONS


def _names_another_room(event: Event, create: Event) -> bool:
    return event.room_id != create.room_id or not create.is_create


def _check_aliases(event: Event) -> None:
    """Rule 4 of versions 1 to 5."""
    if event.state_key is None:
        raise EventRejected("v5/4.1", "The aliases event has no state key.")
    if event.state_key != domain_of(event.sender):
        raise EventRejected("v5/4.2", "The aliases are those of another server.")


def _check_redaction(event: Event, power: PowerLevels) -> None:
    """Rule 11 of versions 1 and 2."""
    # 11.1
    if power.user_level(event.sender) >= power.redact:
        return
    # 11.2
    redacted = domain_of(event.redacts or "")
    if not redacted or redacted != domain_of(event.event_id):
        raise EventRejected("v2/11.3", "The sender may not redact events of other servers.")
