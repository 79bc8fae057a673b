"""Upgrading rooms (client-server API, "Room upgrades").

The new room, the old room's last events, and the move of aliases and of the directory entry are
one transaction. What the new room's state is to be is read shortly before; the right to upgrade is
judged again under the old room's lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeserver.core import canonical, errors
from homeserver.core.event import Event
from homeserver.core.ids import RoomID, UserID
from homeserver.core.power_levels import (
    DEFAULTS,
    PowerLevels,
    is_user_id,
    read_level,
    room_creators,
)
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject, StateKey
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.create import V12_TOMBSTONE_LEVEL
from homeserver.rooms.requests import AppendRequest, StateView, Succession
from homeserver.web.request import Requester
from storage import aliases, memberships, profiles, published, rooms, state
from storage.database import Database
from storage.transaction import Transaction

MEMBER = "m.room.member"
POWER: StateKey = ("m.room.power_levels", "")
CREATE: StateKey = ("m.room.create", "")
CANONICAL: StateKey = ("m.room.canonical_alias", "")
TOMBSTONE = "m.room.tombstone"
COPIED = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)
"""Types of state, besides power levels, that the new room takes over as they are."""

MAX_CREATORS = 100


@dataclass(frozen=True, slots=True)
class _OldRoom:
    """What of the old room goes into the new one."""

    room_id: str
    version: RoomVersion
    state: Mapping[StateKey, Event]
    bans: Sequence[Event]
    children: Sequence[Event]
    aliases: frozenset[str]
    profile: JsonObject
    """Name and avatar of the upgrader."""


class RoomUpgrades:
    """Replaces rooms by rooms of another version."""

    def __init__(self, db: Database, appender: Appender) -> None:
        self._db = db
        self._appender = appender

    async def upgrade(
        self,
        requester: Requester,
        room_id: RoomID,
        new_version: str,
        additional_creators: Sequence[str] | None = None,
    ) -> str:
        """Replace a room; the ID of the new one.

        Parameters: `additional_creators`, heeded where the new version knows them.

        Raises:
            MatrixError: 400 `M_UNSUPPORTED_ROOM_VERSION`, `M_INVALID_PARAM`; 403 `M_FORBIDDEN`
                without the right to close the old room.
        """
        version = ROOM_VERSIONS.get(new_version)
        if version is None:
            raise errors.unsupported_room_version(new_version)
        creators = _creators(additional_creators) if version.creators_privileged else []
        old = await self._db.read(_old_room, room_id, requester.user_id)
        plan = _Plan(requester.user_id, old, version, creators)

        def move(txn: Transaction, new_nid: int, new_room_id: str) -> None:
            old_nid = rooms.nid(txn, room_id)
            if old_nid is not None:
                aliases.move(txn, old_nid, new_nid)
                published.move(txn, old_nid, new_nid)

        request = AppendRequest(
            None,
            [],
            create=version,
            within=move,
            succession=Succession(room_id, plan.retire, plan.begin),
            pretend=requester.is_shadow_banned,
        )
        return (await self._appender.append(request)).room_id


def _creators(named: Sequence[str] | None) -> list[str]:
    found = list(dict.fromkeys(named or ()))
    if len(found) > MAX_CREATORS or not all(is_user_id(name) for name in found):
        raise errors.invalid_param(
            f"`additional_creators` must be a list of at most {MAX_CREATORS} user IDs."
        )
    return found


def _old_room(txn: Transaction, room_id: str, user_id: str) -> _OldRoom:
    room = rooms.get(txn, room_id)
    version = ROOM_VERSIONS.get(room.version) if room is not None else None
    member = memberships.get(txn, room.room_nid, user_id) if room is not None else None
    if room is None or version is None or member is None or member.membership != "join":
        raise errors.forbidden("You are not in this room, or it does not exist.")
    keys = [CREATE, POWER, CANONICAL, *((event_type, "") for event_type in COPIED)]
    found = {
        key: Event.from_json(row.json, version, row.event_id)
        for key, row in state.current(txn, room.room_nid, keys).items()
    }
    _require_right(found.get(POWER), found.get(CREATE), user_id)

    def of_type(event_type: str) -> list[Event]:
        rows = state.current_of_type(txn, room.room_nid, event_type)
        return [
            Event.from_json(rows[name].json, version, rows[name].event_id) for name in sorted(rows)
        ]

    is_space = CREATE in found and found[CREATE].content.get("type") == "m.space"
    return _OldRoom(
        room_id,
        version,
        found,
        [event for event in of_type(MEMBER) if event.membership == "ban"],
        [event for event in of_type("m.space.child") if event.content] if is_space else [],
        frozenset(aliases.of_room(txn, room.room_nid)),
        profiles.get_profiles(txn, [user_id], ["displayname", "avatar_url"]).get(user_id, {}),
    )


def _require_right(power_event: Event | None, create: Event | None, user_id: str) -> None:
    if create is None:
        raise errors.forbidden("The room has no create event.")
    power = PowerLevels.of(power_event, create)
    if power.user_level(user_id) < power.event_level(TOMBSTONE, True):
        raise errors.forbidden("You may not upgrade this room.")


@dataclass(frozen=True, slots=True)
class _Plan:
    """The events of one upgrade."""

    user_id: UserID
    old: _OldRoom
    version: RoomVersion
    additional_creators: Sequence[str]

    def begin(self, last_event_id: str | None) -> list[EventTemplate]:
        """The events of the new room."""
        levels = self._levels()
        first = self._first_levels(levels)
        member = {**self.old.profile, "membership": "join"}
        events = [
            self._state("m.room.create", self._creation_content(last_event_id)),
            self._state(MEMBER, member, self.user_id),
            self._state(POWER[0], first),
        ]
        for event_type in COPIED:
            event = self.old.state.get((event_type, ""))
            if event is not None:
                events.append(self._state(event_type, self._content(event)))
        canonical_alias = self._canonical_alias()
        if canonical_alias:
            events.append(self._state(CANONICAL[0], canonical_alias))
        events += [
            self._state(event.type, event.content, event.state_key or "")
            for event in self.old.children
        ]
        for event in self.old.bans:
            if event.state_key not in (self.user_id, *self.additional_creators):
                events.append(self._state(MEMBER, _ban(event), event.state_key or ""))
        if first != levels:
            events.append(self._state(POWER[0], levels))
        return [
            event
            for event in events
            if event.type in ("m.room.create", MEMBER, POWER[0]) or self._fits(event)
        ]

    def retire(self, view: StateView, new_room_id: str) -> list[EventTemplate]:
        """The last events of the old room."""
        create, power_event = view.get(*CREATE), view.get(*POWER)
        _require_right(power_event, create, self.user_id)
        assert create is not None
        power = PowerLevels.of(power_event, create)
        level = power.user_level(self.user_id)
        events = [
            self._state(
                TOMBSTONE,
                {"body": "This room has been replaced", "replacement_room": new_room_id},
            )
        ]
        named = view.get(*CANONICAL)
        if named is not None and level >= power.event_level(CANONICAL[0], True):
            kept = _other_aliases(named.content, self.old.aliases)
            if kept != named.content:
                events.append(self._state(CANONICAL[0], kept))
        muted = _muted(power_event, power, level)
        if muted is not None:
            events.append(self._state(POWER[0], muted))
        return events

    def _state(self, event_type: str, content: JsonObject, state_key: str = "") -> EventTemplate:
        return EventTemplate(event_type, self.user_id, content, state_key)

    def _creation_content(self, last_event_id: str | None) -> JsonObject:
        old = self.old.state[CREATE].content
        predecessor = {"room_id": self.old.room_id}
        if last_event_id is not None:
            predecessor["event_id"] = last_event_id
        content: JsonObject = {
            "room_version": self.version.identifier,
            "predecessor": predecessor,
        }
        if isinstance(old.get("type"), str):
            content["type"] = old["type"]
        if isinstance(old.get("m.federate"), bool):
            content["m.federate"] = old["m.federate"]
        if not self.version.implicit_room_creator:
            content["creator"] = self.user_id
        if self.additional_creators:
            content["additional_creators"] = list(self.additional_creators)
        return content

    def _content(self, event: Event) -> JsonObject:
        content = event.content
        if event.type != "m.room.join_rules":
            return content
        rule = content.get("join_rule")
        known = {
            "knock": self.version.knocking,
            "restricted": self.version.restricted_joins,
            "knock_restricted": self.version.knock_restricted,
        }
        # A rule that the version does not know would let nobody in, invited or not.
        return content if known.get(str(rule), True) else {"join_rule": "invite"}

    def _fits(self, template: EventTemplate) -> bool:
        """Old versions took values that new ones refuse: such state stays behind."""
        try:
            canonical.check(template.content, self.version.strict_canonical_json)
        except canonical.CanonicalJSONError:
            return False
        return True

    def _canonical_alias(self) -> JsonObject:
        event = self.old.state.get(CANONICAL)
        if event is None:
            return {}
        content: dict[str, Any] = {}
        if event.content.get("alias") in self.old.aliases:
            content["alias"] = event.content["alias"]
        others = event.content.get("alt_aliases")
        if isinstance(others, list):
            moved = [name for name in others if name in self.old.aliases]
            if moved:
                content["alt_aliases"] = moved
        return content

    def _levels(self) -> JsonObject:
        """The power levels of the new room, in the end."""
        create = self.old.state[CREATE]
        power_event = self.old.state.get(POWER)
        old_version = self.old.version
        content = _integers(power_event.content if power_event is not None else {}, old_version)
        users: dict[str, int] = content["users"]
        highest = max([100, *users.values(), *content["events"].values()])
        were_privileged = old_version.creators_privileged
        if (power_event is None and not were_privileged) or (
            were_privileged and not self.version.creators_privileged
        ):
            # Their rights did not come from the levels.
            users |= dict.fromkeys(sorted(room_creators(create)), min(highest, _MAX_LEVEL))
        if self.version.creators_privileged:
            for name in (self.user_id, *self.additional_creators):
                users.pop(name, None)
            if not were_privileged:
                wanted = max(V12_TOMBSTONE_LEVEL, _level(content, "state_default") + 1)
                events = content["events"]
                events[TOMBSTONE] = min(max(events.get(TOMBSTONE, 0), wanted), _MAX_LEVEL)
        return content

    def _first_levels(self, levels: JsonObject) -> JsonObject:
        """Power levels by which the upgrader may send all of the copied state."""
        if self.version.creators_privileged:
            return levels
        needed = [_level(levels, name) for name in DEFAULTS]
        needed += [*levels["events"].values(), *levels["notifications"].values(), 100]
        # The bans: strictly above those who are banned.
        needed += [min(level + 1, _MAX_LEVEL) for level in levels["users"].values()]
        own = levels["users"].get(self.user_id, _level(levels, "users_default"))
        if own >= max(needed):
            return levels
        return {**levels, "users": {**levels["users"], self.user_id: max(needed)}}


_MAX_LEVEL = 2**53 - 1


def _level(content: JsonObject, name: str) -> int:
    level = content.get(name)
    return level if isinstance(level, int) else DEFAULTS[name]


def _integers(content: JsonObject, version: RoomVersion) -> dict[str, Any]:
    """Power levels as every room version takes them: what cannot be read is left out."""
    found: dict[str, Any] = {}
    for name in DEFAULTS:
        level = read_level(content.get(name), version)
        if level is not None:
            found[name] = _bounded(level)
    for group in ("users", "events", "notifications"):
        entries = content.get(group)
        levels = {}
        for key, value in entries.items() if isinstance(entries, dict) else ():
            level = read_level(value, version)
            if level is not None and (group != "users" or is_user_id(key)):
                levels[key] = _bounded(level)
        found[group] = levels
    return found


def _bounded(level: int) -> int:
    return max(-_MAX_LEVEL, min(_MAX_LEVEL, level))


def _ban(event: Event) -> JsonObject:
    content: JsonObject = {"membership": "ban"}
    if isinstance(event.content.get("reason"), str):
        content = {**content, "reason": event.content["reason"]}
    return content


def _other_aliases(content: JsonObject, moved: frozenset[str]) -> JsonObject:
    kept = dict(content)
    if kept.get("alias") in moved:
        del kept["alias"]
    others = kept.get("alt_aliases")
    if isinstance(others, list):
        kept["alt_aliases"] = [name for name in others if name not in moved]
        if not kept["alt_aliases"]:
            del kept["alt_aliases"]
    return kept


def _muted(power_event: Event | None, power: PowerLevels, level: int) -> JsonObject | None:
    """Power levels that stop talk and invites in the old room; None where they do already, or the
    upgrader may not set them."""
    if power_event is None or level < power.event_level(POWER[0], True):
        return None
    default = read_level(power_event.content.get("users_default"), power.version) or 0
    silent = max(50, default + 1)
    content = dict(power_event.content)
    changed = False
    for name in ("events_default", "invite"):
        current = read_level(content.get(name), power.version)
        current = DEFAULTS[name] if current is None else current
        if current < silent <= level:
            content[name] = silent
            changed = True
    return content if changed else None
