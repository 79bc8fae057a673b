"""The room versions, as inherited data (Room Versions, "Complete list of room versions").

All code that depends on the version of a room reads one of these properties; nothing compares
version identifiers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType


class StateRes(Enum):
    """The state resolution algorithm."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"


@dataclass(frozen=True, slots=True, eq=False)
class RoomVersion:
    """What sets one room version apart.

    Format: `event_format` is 1 (event IDs chosen by the origin, references as pairs), 2 (event
    IDs are hashes in standard base64) or 3 (hashes in URL-safe base64). `max_depth` is the
    largest `depth`. `redaction_keys` and `redaction_content` (event type → keys of `content`;
    None: all) are what redaction keeps.
    """

    identifier: str
    event_format: int
    state_res: StateRes
    redaction_keys: frozenset[str]
    redaction_content: Mapping[str, frozenset[str] | None]
    stable: bool = True

    # Event format
    strict_canonical_json: bool = False
    max_depth: int = 2**63 - 1
    key_sizes_in_bytes: bool = False
    """Limited keys of received events are measured in bytes; before version 11 servers counted
    characters, and rooms hold such events."""
    redacts_in_content: bool = False
    """`redacts` of a redaction is in `content`, not at top level."""
    room_id_is_create_hash: bool = False
    """The room ID is the create event's ID with another sigil; the create event has no `room_id`
    and is not named in `auth_events`."""

    # Signatures
    key_validity_enforced: bool = False
    """Signing keys must have been valid at `origin_server_ts`."""

    # Power levels
    float_power_levels: bool = True
    string_power_levels: bool = True

    # Authorisation rules
    special_aliases_auth: bool = True
    """`m.room.aliases` has its own rule, and needs no membership."""
    redaction_auth_rule: bool = True
    """Redactions are judged by the authorisation rules, not when they are applied."""
    notifications_guarded: bool = False
    """Changes to `notifications` of the power levels are checked against the own level."""
    knocking: bool = False
    restricted_joins: bool = False
    knock_restricted: bool = False
    implicit_room_creator: bool = False
    """The creator is the sender of the create event; `content.creator` means nothing."""
    creators_privileged: bool = False
    """Creators, `additional_creators` included, have infinite power and may not be listed in
    `users`."""

    # Redaction
    redaction_keeps_third_party_signed: bool = False
    """`content.third_party_invite.signed` of member events stays."""

    # Federation
    strict_stripped_state: bool = False
    """`invite_room_state` and `knock_room_state` must hold full, signed events, create event
    included."""

    @property
    def event_id_is_hash(self) -> bool:
        """Is the event ID computed from the event, and absent from its federation form?"""
        return self.event_format > 1

    @property
    def integer_power_levels(self) -> bool:
        """Must all power levels be integers?"""
        return not (self.float_power_levels or self.string_power_levels)

    @property
    def invite_v1_fallback(self) -> bool:
        """May an invite fall back to version 1 of the federation API?"""
        return self.event_format == 1

    @property
    def predecessor_event_id_expected(self) -> bool:
        """Should an upgrade to this version name the last event in `predecessor`?"""
        return not self.room_id_is_create_hash


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _content(
    base: Mapping[str, frozenset[str] | None], **changes: str | None
) -> Mapping[str, frozenset[str] | None]:
    """`base` with some types changed: named without their ``m.room.``; "" forgets the type."""
    kept = dict(base)
    for name, keys in changes.items():
        if keys == "":
            kept.pop(f"m.room.{name}", None)
        else:
            kept[f"m.room.{name}"] = None if keys is None else _words(keys)
    return MappingProxyType(kept)


V1 = RoomVersion(
    identifier="1",
    event_format=1,
    state_res=StateRes.V1,
    redaction_keys=_words(
        "event_id type room_id sender state_key content hashes signatures depth prev_events"
        " prev_state auth_events origin origin_server_ts membership"
    ),
    redaction_content=_content(
        {},
        member="membership",
        create="creator",
        join_rules="join_rule",
        power_levels="ban events events_default kick redact state_default users users_default",
        aliases="aliases",
        history_visibility="history_visibility",
    ),
)
V2 = replace(V1, identifier="2", state_res=StateRes.V2)
V3 = replace(V2, identifier="3", event_format=2, redaction_auth_rule=False)
V4 = replace(V3, identifier="4", event_format=3)
V5 = replace(V4, identifier="5", key_validity_enforced=True)
V6 = replace(
    V5,
    identifier="6",
    strict_canonical_json=True,
    max_depth=2**53 - 1,
    float_power_levels=False,
    special_aliases_auth=False,
    notifications_guarded=True,
    redaction_content=_content(V5.redaction_content, aliases=""),
)
V7 = replace(V6, identifier="7", knocking=True)
V8 = replace(
    V7,
    identifier="8",
    restricted_joins=True,
    redaction_content=_content(V7.redaction_content, join_rules="join_rule allow"),
)
V9 = replace(
    V8,
    identifier="9",
    redaction_content=_content(
        V8.redaction_content, member="membership join_authorised_via_users_server"
    ),
)
V10 = replace(V9, identifier="10", string_power_levels=False, knock_restricted=True)
V11 = replace(
    V10,
    identifier="11",
    implicit_room_creator=True,
    redacts_in_content=True,
    key_sizes_in_bytes=True,
    redaction_keys=V10.redaction_keys - {"prev_state", "origin", "membership"},
    redaction_keeps_third_party_signed=True,
    redaction_content=_content(
        V10.redaction_content,
        create=None,
        power_levels=(
            "ban events events_default invite kick redact state_default users users_default"
        ),
        redaction="redacts",
    ),
)
V12 = replace(
    V11,
    identifier="12",
    state_res=StateRes.V2_1,
    room_id_is_create_hash=True,
    creators_privileged=True,
    strict_stripped_state=True,
)

ROOM_VERSIONS: Mapping[str, RoomVersion] = MappingProxyType(
    {v.identifier: v for v in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)}
)
"""Every supported version by its identifier."""

DEFAULT_ROOM_VERSION = V12.identifier
"""The specification's default for new rooms."""
