"""Creating rooms (client-server API, "Creation", `POST /createRoom`).

The events are made in the specification's order: create, the creator's join, power levels,
canonical alias, preset, `initial_state`, `name`, `topic`, invites. All of them are added in one
transaction with the alias and the directory entry: a room is made whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from twisted.internet.defer import Deferred

from homeserver.core import errors
from homeserver.core.errors import MatrixError
from homeserver.core.ids import InvalidIdentifier, RoomAlias, RoomID, UserID
from homeserver.core.power_levels import check_sent_power_levels
from homeserver.core.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.core.types import JsonObject
from homeserver.rooms import invite_blocking
from homeserver.rooms.append import Appender
from homeserver.rooms.build import EventTemplate
from homeserver.rooms.membership import Membership
from homeserver.rooms.published import require_publication
from homeserver.rooms.requests import AppendRequest
from homeserver.web.request import Requester
from storage import aliases, profiles, published
from storage.database import Database
from storage.transaction import Transaction

_log = structlog.get_logger(__name__)
MAX_INVITES = 100
MAX_INITIAL_STATE = 500

PRESETS: Mapping[str, Mapping[str, str]] = {
    "private_chat": {
        "join_rule": "invite",
        "history_visibility": "shared",
        "guest_access": "can_join",
    },
    "trusted_private_chat": {
        "join_rule": "invite",
        "history_visibility": "shared",
        "guest_access": "can_join",
    },
    "public_chat": {
        "join_rule": "public",
        "history_visibility": "shared",
        "guest_access": "forbidden",
    },
}

_POWER = "m.room.power_levels"

V12_TOMBSTONE_LEVEL = 150
"""Above every administrator: only creators may upgrade rooms in which they are privileged."""

_EVENT_LEVELS = {
    "m.room.name": 50,
    "m.room.avatar": 50,
    "m.room.canonical_alias": 50,
    "m.room.power_levels": 100,
    "m.room.history_visibility": 100,
    "m.room.encryption": 100,
    "m.room.server_acl": 100,
    "m.room.tombstone": 100,
}


@dataclass(frozen=True, slots=True)
class InitialState:
    """A state event that the creator wants in the room from the start."""

    type: str
    content: JsonObject
    state_key: str = ""


@dataclass(frozen=True, slots=True)
class WantedRoom:
    """What the creator asks for; the fields are those of the endpoint."""

    room_version: str | None = None
    visibility: str = "private"
    preset: str | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: Sequence[str] = ()
    is_direct: bool = False
    creation_content: JsonObject = field(default_factory=dict)
    initial_state: Sequence[InitialState] = ()
    power_level_content_override: JsonObject = field(default_factory=dict)


class RoomCreation:
    """Creates rooms.

    Parameters: `members` invites users of other servers; `publication`, who may put rooms on the
    public list: `anyone`, `admins`, `nobody`.
    """

    def __init__(
        self,
        db: Database,
        appender: Appender,
        members: Membership,
        server_name: str,
        default_version: str,
        publication: str = "anyone",
    ) -> None:
        self._db = db
        self._members = members
        self._appender = appender
        self._server_name = server_name
        self._default_version = default_version
        self._publication = publication
        self.check_alias: Callable[[Requester, RoomAlias], None] = lambda requester, alias: None
        """Raises MatrixError 400 M_EXCLUSIVE for aliases of application services."""

    async def create(
        self,
        requester: Requester,
        wanted: WantedRoom,
        *,
        within: Callable[[Transaction, int, str], None] | None = None,
        must_invite: bool = False,
    ) -> str:
        """Create a room; its ID.

        Parameters: `within`, see `AppendRequest`; `must_invite`, also users who take no invites.

        Users of other servers are invited once the room is there; that it fails for one of them,
        whose server is away perhaps, does not undo the room.

        Raises:
            MatrixError: 400 `M_UNSUPPORTED_ROOM_VERSION`, `M_ROOM_IN_USE`,
                `M_INVALID_ROOM_STATE`, `M_BAD_JSON`, `M_INVALID_PARAM`; 403 `M_FORBIDDEN`,
                `M_INVITE_BLOCKED`.
        """
        if requester.is_shadow_banned:
            # A room of their own they may have; nobody is to come across it.
            wanted = replace(wanted, invite=[], visibility="private", preset=self._preset(wanted))
        version = self.version(wanted.room_version)
        preset = self._preset(wanted)
        invitees = self._invitees(requester, wanted)
        alias = self._alias(wanted)
        if alias is not None:
            self.check_alias(requester, alias)
        publish = self._publishes(requester, wanted)
        if self._members.meet is not None:
            for invitee in invitees:
                await self._members.meet(invitee)
        profile = await self._db.read(_profile_content, [requester.user_id, *invitees])
        templates = _Plan(requester.user_id, version, preset, wanted, invitees, alias).templates(
            profile
        )

        def also(txn: Transaction, room_nid: int, room_id: str) -> None:
            if not must_invite:
                for user_id in invitees:
                    invite_blocking.check(txn, user_id, requester.user_id)
            if alias is not None and not aliases.insert(txn, alias, room_nid, requester.user_id):
                raise errors.room_in_use()
            if publish:
                published.set_published(txn, room_nid, True)
            if within is not None:
                within(txn, room_nid, room_id)

        request = AppendRequest(None, templates, create=version, within=also)
        try:
            room_id = RoomID((await self._appender.append(request)).room_id)
        except MatrixError as problem:
            if problem.errcode == "M_FORBIDDEN":
                # The creator may do everything but contradict themselves.
                raise MatrixError(400, "M_INVALID_ROOM_STATE", problem.error)
            raise
        others = [user_id for user_id in invitees if user_id.domain != self._server_name]
        content: JsonObject = {"is_direct": True} if wanted.is_direct else {}
        waiting = [
            Deferred.fromCoroutine(self._invite(requester, room_id, user_id, content))
            for user_id in others
        ]
        for each in waiting:
            await each
        return room_id

    async def _invite(
        self, requester: Requester, room_id: RoomID, user_id: UserID, content: JsonObject
    ) -> None:
        try:
            await self._members.invite(requester, room_id, user_id, content)
        except MatrixError as problem:
            _log.warning(
                "A user of another server was not invited to a new room",
                room_id=room_id,
                user_id=user_id,
                reason=problem.error,
            )

    def version(self, name: str | None) -> RoomVersion:
        """The room version of this name, or the default one.

        Raises MatrixError 400 `M_UNSUPPORTED_ROOM_VERSION`.
        """
        wanted = self._default_version if name is None else name
        version = ROOM_VERSIONS.get(wanted)
        if version is None:
            raise errors.unsupported_room_version(wanted)
        return version

    def _preset(self, wanted: WantedRoom) -> str:
        if wanted.visibility not in ("public", "private"):
            raise errors.invalid_param("`visibility` must be public or private.")
        preset = wanted.preset
        if preset is None:
            return "public_chat" if wanted.visibility == "public" else "private_chat"
        if preset not in PRESETS:
            raise errors.invalid_param("`preset` must be one of " + ", ".join(PRESETS) + ".")
        return preset

    def _invitees(self, requester: Requester, wanted: WantedRoom) -> list[UserID]:
        if len(wanted.invite) > MAX_INVITES:
            raise errors.invalid_param(f"`invite` may name at most {MAX_INVITES} users.")
        if len(wanted.initial_state) > MAX_INITIAL_STATE:
            raise errors.invalid_param(f"`initial_state` may have {MAX_INITIAL_STATE} events.")
        found = []
        for name in dict.fromkeys(wanted.invite):
            try:
                user_id = UserID.parse(name)
            except InvalidIdentifier as problem:
                raise errors.invalid_param(f"`invite`: {name!r} is no user ID: {problem.reason}.")
            if user_id == requester.user_id:
                raise errors.forbidden("You cannot invite yourself.")
            found.append(user_id)
        return found

    def _alias(self, wanted: WantedRoom) -> RoomAlias | None:
        if wanted.room_alias_name is None:
            return None
        if ":" in wanted.room_alias_name or not wanted.room_alias_name:
            raise errors.invalid_param("`room_alias_name` is the part between # and the colon.")
        try:
            return RoomAlias.parse(f"#{wanted.room_alias_name}:{self._server_name}")
        except InvalidIdentifier as problem:
            raise errors.invalid_param(f"`room_alias_name` cannot be used: {problem.reason}.")

    def _publishes(self, requester: Requester, wanted: WantedRoom) -> bool:
        if wanted.visibility != "public":
            return False
        require_publication(self._publication, requester)
        return True


@dataclass(frozen=True, slots=True)
class _Plan:
    """The events of one new room."""

    creator: UserID
    version: RoomVersion
    preset: str
    wanted: WantedRoom
    invitees: Sequence[UserID]
    alias: RoomAlias | None

    def templates(self, profile: Mapping[str, JsonObject]) -> list[EventTemplate]:
        wanted = self.wanted
        power = self._power_levels()
        first = [
            self._state("m.room.create", self._creation_content()),
            self._state(
                "m.room.member",
                {**profile.get(self.creator, {}), "membership": "join"},
                self.creator,
            ),
            self._state("m.room.power_levels", power),
        ]
        if self.alias is not None:
            first.append(self._state("m.room.canonical_alias", {"alias": self.alias}))
        rest = self._preset_events()
        given = {(item.type, item.state_key): item for item in wanted.initial_state}
        rest = [item for item in rest if (item.type, item.state_key) not in given]
        given.pop((_POWER, ""), None)
        for (event_type, state_key), item in given.items():
            if event_type in ("m.room.create", "m.room.member"):
                raise errors.invalid_param(f"`initial_state` cannot hold {event_type} events.")
            if "\0" in event_type or "\0" in state_key:
                raise errors.invalid_param("`initial_state`: NUL is not allowed here.")
            rest.append(self._state(event_type, item.content, state_key))
        if wanted.name is not None:
            rest = [item for item in rest if (item.type, item.state_key) != ("m.room.name", "")]
            rest.append(self._state("m.room.name", {"name": wanted.name}))
        if wanted.topic is not None:
            rest = [item for item in rest if (item.type, item.state_key) != ("m.room.topic", "")]
            rest.append(self._state("m.room.topic", topic_content(wanted.topic)))
        invites = [
            self._invite(user_id, profile)
            for user_id in self.invitees
            if user_id.domain == self.creator.domain
        ]
        return [*first, *rest, *invites]

    def _state(self, event_type: str, content: JsonObject, state_key: str = "") -> EventTemplate:
        return EventTemplate(event_type, self.creator, content, state_key)

    def _invite(self, user_id: UserID, profile: Mapping[str, JsonObject]) -> EventTemplate:
        content: JsonObject = {**profile.get(user_id, {}), "membership": "invite"}
        if self.wanted.is_direct:
            content["is_direct"] = True
        return self._state("m.room.member", content, user_id)

    def _creation_content(self) -> JsonObject:
        content: dict[str, Any] = {**self.wanted.creation_content}
        content.pop("creator", None)
        content["room_version"] = self.version.identifier
        if not self.version.implicit_room_creator:
            content["creator"] = self.creator
        if not self.version.creators_privileged:
            return content
        named = content.get("additional_creators", [])
        if not isinstance(named, list) or not all(_is_user_id(name) for name in named):
            raise errors.invalid_param("`additional_creators` must be a list of user IDs.")
        if self.preset == "trusted_private_chat":
            named = [*named, *self.invitees]
        if named:
            content["additional_creators"] = list(dict.fromkeys(named))
        return content

    def _creators(self) -> list[str]:
        if not self.version.creators_privileged:
            return []
        named = self._creation_content().get("additional_creators", [])
        return [self.creator, *named]

    def _power_levels(self) -> JsonObject:
        users: dict[str, int] = {}
        if not self.version.creators_privileged:
            users[self.creator] = 100
            if self.preset == "trusted_private_chat":
                users |= {str(user_id): 100 for user_id in self.invitees}
        content: JsonObject = {
            "users": users,
            "users_default": 0,
            "events": dict(_EVENT_LEVELS),
            "events_default": 0,
            "state_default": 50,
            "ban": 50,
            "kick": 50,
            "redact": 50,
            "invite": 50 if self.preset == "public_chat" else 0,
            "historical": 100,
            **self.wanted.power_level_content_override,
        }
        given = self._given(_POWER)
        if given is not None:
            content = given.content
        check_sent_power_levels(content, self._creators())
        return self._with_tombstone(content) if given is None else content

    def _with_tombstone(self, content: JsonObject) -> JsonObject:
        """Have tombstones need more than other state, where creators are privileged."""
        overridden = self.wanted.power_level_content_override.get("events", {})
        if not self.version.creators_privileged or "m.room.tombstone" in overridden:
            return content
        needed = max(V12_TOMBSTONE_LEVEL, content["state_default"] + 1)
        return {**content, "events": {**content["events"], "m.room.tombstone": needed}}

    def _given(self, event_type: str) -> InitialState | None:
        """The last of the initial state with this type and an empty state key."""
        found = None
        for item in self.wanted.initial_state:
            if item.type == event_type and item.state_key == "":
                found = item
        return found

    def _preset_events(self) -> list[EventTemplate]:
        settings = PRESETS[self.preset]
        return [
            self._state("m.room.join_rules", {"join_rule": settings["join_rule"]}),
            self._state(
                "m.room.history_visibility",
                {"history_visibility": settings["history_visibility"]},
            ),
            self._state("m.room.guest_access", {"guest_access": settings["guest_access"]}),
        ]


def topic_content(topic: str) -> JsonObject:
    """A topic in its plain and its rich form (event `m.room.topic`)."""
    return {
        "topic": topic,
        "m.topic": {"m.text": [{"body": topic, "mimetype": "text/plain"}]},
    }


def _is_user_id(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        UserID.parse(value)
    except InvalidIdentifier:
        return False
    return True


def _profile_content(txn: Transaction, user_ids: Sequence[str]) -> Mapping[str, JsonObject]:
    return profiles.get_profiles(txn, user_ids, ["displayname", "avatar_url"])
