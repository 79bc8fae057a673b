"""Push rules: the server's defaults, a user's ruleset, and what they say about an event.

Client-server API, "Push Notifications". A `Ruleset` is an immutable value: the default rules with
the user's changes to them, and the user's own rules. `push_rule_changes` makes new ones.

Most users keep the defaults, which say nearly the same for everybody in a room. So events are
judged once by `event_class`; users mentioned or invited come from `highlighted_users` and
`invited_user`; and only users whose rules deviate (`Ruleset.differs_in`) are evaluated one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

from homeserver.core.push_conditions import (
    THREAD_SUBSCRIPTION,
    Condition,
    PushEvent,
    compile_condition,
    event_match,
    is_about_room,
    mentioned_users,
    never,
)
from homeserver.core.types import JsonObject

POSTCONTENT = "postcontent"
"""The kind of rules for threads (MSC4306). Users have none of their own."""
KINDS = ("override", "content", POSTCONTENT, "room", "sender", "underride")
"""Kinds of rules, in the order in which they are asked."""
CONDITIONAL_KINDS = ("override", POSTCONTENT, "underride")
MASTER = ".m.rule.master"

Actions = tuple[Any, ...]


class EventClass(IntEnum):
    """What an event does to everybody in the room under the default rules."""

    NONE = 0
    NOTIFY = 1
    HIGHLIGHT = 2


def notifies(actions: Iterable[Any]) -> bool:
    """Whether actions make a notification. `dont_notify` and `coalesce` mean nothing."""
    return "notify" in actions


def tweaks(actions: Iterable[Any]) -> JsonObject:
    """The tweaks that actions set, by name, as sent to push gateways."""
    found: JsonObject = {}
    for action in actions:
        if isinstance(action, dict) and isinstance(action.get("set_tweak"), str):
            name = action["set_tweak"]
            if "value" in action:
                found[name] = action["value"]
            elif name == "highlight":
                found[name] = True
    return found


def class_of(actions: Actions) -> EventClass:
    """The class of an event for a user for whom it has these actions."""
    if not notifies(actions):
        return EventClass.NONE
    highlighted = tweaks(actions).get("highlight") is True
    return EventClass.HIGHLIGHT if highlighted else EventClass.NOTIFY


@dataclass(frozen=True, slots=True)
class PushRule:
    """A push rule. `conditions` are for override and underride, `pattern` is for content."""

    kind: str
    rule_id: str
    actions: Actions
    conditions: tuple[JsonObject, ...] = ()
    pattern: str | None = None
    enabled: bool = True
    default: bool = False
    _tests: tuple[Condition, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tests", tuple(self._compile()))

    def _compile(self) -> Iterator[Condition]:
        if self.kind in CONDITIONAL_KINDS:
            yield from map(compile_condition, self.conditions)
        elif self.kind == "content":
            yield never if self.pattern is None else event_match("content.body", self.pattern)

    @property
    def can_match(self) -> bool:
        """Whether the rule is enabled, and none of its conditions is unknown."""
        return self.enabled and never not in self._tests

    def matches(self, event: PushEvent, display_name: str | None) -> bool:
        """Whether the rule is enabled and all of its conditions hold."""
        if not self.enabled:
            return False
        if self.kind == "room":
            return bool(event.room_id == self.rule_id)
        if self.kind == "sender":
            return bool(event.sender == self.rule_id)
        for test in self._tests:  # noqa: SIM110 - a generator takes twice as long
            if not test(event, display_name):
                return False
        return True

    def to_json(self) -> JsonObject:
        """The rule as the API shows it."""
        shown: JsonObject = {
            "rule_id": self.rule_id,
            "default": self.default,
            "enabled": self.enabled,
            "actions": list(self.actions),
        }
        if self.kind in CONDITIONAL_KINDS:
            shown["conditions"] = list(self.conditions)
        if self.pattern is not None:
            shown["pattern"] = self.pattern
        return shown


_SOUND = {"set_tweak": "sound", "value": "default"}
_HIGHLIGHT = {"set_tweak": "highlight"}


def _match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _default(
    kind: str, name: str, conditions: list[JsonObject], *actions: Any, enabled: bool = True
) -> PushRule:
    return PushRule(
        kind, f".m.rule.{name}", actions, tuple(conditions), enabled=enabled, default=True
    )


def _invite_for_me(user_id: str) -> PushRule:
    conditions = [
        _match("type", "m.room.member"),
        _match("content.membership", "invite"),
        _match("state_key", user_id),
    ]
    return _default("override", "invite_for_me", conditions, "notify", _SOUND)


def _is_user_mention(user_id: str) -> PushRule:
    condition = {
        "kind": "event_property_contains",
        "key": "content.m\\.mentions.user_ids",
        "value": user_id,
    }
    return _default("override", "is_user_mention", [condition], "notify", _SOUND, _HIGHLIGHT)


# Two rules name the user; these stand around them.
_MASTER = _default("override", "master", [], enabled=False)
_BEFORE_INVITE = (
    _default("override", "suppress_notices", [_match("content.msgtype", "m.notice")]),
)
_BEFORE_MENTION = (_default("override", "member_event", [_match("type", "m.room.member")]),)
_AFTER_MENTION = (
    _default(
        "override",
        "is_room_mention",
        [
            {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ],
        "notify",
        _HIGHLIGHT,
    ),
    _default(
        "override",
        "tombstone",
        [_match("type", "m.room.tombstone"), _match("state_key", "")],
        "notify",
        _HIGHLIGHT,
    ),
    _default("override", "reaction", [_match("type", "m.reaction")]),
    _default(
        "override",
        "room.server_acl",
        [_match("type", "m.room.server_acl"), _match("state_key", "")],
    ),
    _default(
        "override",
        "suppress_edits",
        [
            {
                "kind": "event_property_is",
                "key": "content.m\\.relates_to.rel_type",
                "value": "m.replace",
            }
        ],
    ),
)
# Of users who follow threads, or have followed any (MSC4306): see `PushEvent.follows`.
_THREADS = tuple(
    PushRule(
        POSTCONTENT,
        f".io.element.msc4306.rule.{name}_thread",
        actions,
        ({"kind": THREAD_SUBSCRIPTION, "subscribed": name == "subscribed"},),
        default=True,
    )
    for name, actions in (("unsubscribed", ()), ("subscribed", ("notify", _SOUND)))
)
_TWO_MEMBERS = {"kind": "room_member_count", "is": "2"}
_UNDERRIDE = (
    _default(
        "underride",
        "call",
        [_match("type", "m.call.invite")],
        "notify",
        {"set_tweak": "sound", "value": "ring"},
    ),
    _default(
        "underride",
        "encrypted_room_one_to_one",
        [_TWO_MEMBERS, _match("type", "m.room.encrypted")],
        "notify",
        _SOUND,
    ),
    _default(
        "underride",
        "room_one_to_one",
        [_TWO_MEMBERS, _match("type", "m.room.message")],
        "notify",
        _SOUND,
    ),
    _default("underride", "message", [_match("type", "m.room.message")], "notify"),
    _default("underride", "encrypted", [_match("type", "m.room.encrypted")], "notify"),
)
_FOR_EVERYBODY = _BEFORE_INVITE + _BEFORE_MENTION + _AFTER_MENTION + _UNDERRIDE
_SHARED = frozenset(map(id, (_MASTER, *_FOR_EVERYBODY)))


@lru_cache(maxsize=1024)
def default_rules(user_id: str) -> tuple[PushRule, ...]:
    """The server-default rules for a user, the most important one first in each kind."""
    # Values are compared with their types: of a `UserID` no text in an event would be the same.
    user_id = str(user_id)
    return (
        _MASTER,
        *_BEFORE_INVITE,
        _invite_for_me(user_id),
        *_BEFORE_MENTION,
        _is_user_mention(user_id),
        *_AFTER_MENTION,
        *_THREADS,
        *_UNDERRIDE,
    )


DEFAULT_RULE_IDS = {rule.rule_id: rule.kind for rule in default_rules("@user:server")}


class DefaultChange(NamedTuple):
    """What a user changed of a default rule; None: as it is."""

    enabled: bool | None = None
    actions: Actions | None = None


class Ruleset:
    """A user's push rules.

    Parameters: `own`, the user's rules by kind, the most important one first; `changes` of
    default rules by rule ID.
    """

    __slots__ = ("_deviation", "_rooms", "_rules", "_senders", "changes", "own", "user_id")

    def __init__(
        self,
        user_id: str,
        own: Mapping[str, tuple[PushRule, ...]] | None = None,
        changes: Mapping[str, DefaultChange] | None = None,
    ) -> None:
        self.user_id = user_id
        self.own = {kind: tuple((own or {}).get(kind, ())) for kind in KINDS}
        self.changes = {k: v for k, v in (changes or {}).items() if k in DEFAULT_RULE_IDS}
        defaults = [self._changed(rule) for rule in default_rules(user_id)]
        self._rules = {
            kind: (
                *(rule for rule in defaults if rule.kind == kind and rule.rule_id == MASTER),
                *self.own[kind],
                *(rule for rule in defaults if rule.kind == kind and rule.rule_id != MASTER),
            )
            for kind in KINDS
        }
        self._rooms = {rule.rule_id: rule for rule in self.own["room"]}
        self._senders = {rule.rule_id: rule for rule in self.own["sender"]}
        self._deviation: tuple[bool, frozenset[str]] | None = None

    def _changed(self, rule: PushRule) -> PushRule:
        change = self.changes.get(rule.rule_id)
        if change is None:
            return rule
        enabled = rule.enabled if change.enabled is None else change.enabled
        actions = rule.actions if change.actions is None else change.actions
        return replace(rule, enabled=enabled, actions=actions)

    def rules(self, kind: str) -> tuple[PushRule, ...]:
        """All rules of a kind in order of importance, the defaults included."""
        return self._rules[kind]

    def find(self, kind: str, rule_id: str) -> PushRule | None:
        """The rule of that kind and ID."""
        return next((rule for rule in self._rules.get(kind, ()) if rule.rule_id == rule_id), None)

    def to_json(self) -> JsonObject:
        """The ruleset as in `global` of /pushrules and in the `m.push_rules` account data."""
        return {kind: [rule.to_json() for rule in self._rules[kind]] for kind in KINDS}

    def dump(self) -> JsonObject:
        """What differs from the defaults, for storage."""
        own = {
            kind: [rule.to_json() for rule in rules] for kind, rules in self.own.items() if rules
        }
        changes: JsonObject = {}
        for rule_id, change in self.changes.items():
            entry = changes[rule_id] = {}
            if change.enabled is not None:
                entry["enabled"] = change.enabled
            if change.actions is not None:
                entry["actions"] = list(change.actions)
        return {"own": own, "changes": changes}

    @classmethod
    def load(cls, user_id: str, stored: JsonObject) -> Ruleset:
        """The ruleset that `dump` gave. Changes of rules that no longer exist are dropped."""
        own = {
            kind: tuple(
                PushRule(
                    kind,
                    rule["rule_id"],
                    tuple(rule["actions"]),
                    tuple(rule.get("conditions", ())),
                    rule.get("pattern"),
                    rule["enabled"],
                )
                for rule in rules
            )
            for kind, rules in stored.get("own", {}).items()
        }
        changes = {
            rule_id: DefaultChange(
                change.get("enabled"), tuple(change["actions"]) if "actions" in change else None
            )
            for rule_id, change in stored.get("changes", {}).items()
        }
        return cls(user_id, own, changes)

    def evaluate(
        self,
        event: PushEvent,
        display_name: str | None = None,
        shared: dict[int, bool] | None = None,
    ) -> Actions:
        """The actions for an event: those of the first rule that matches, none for own events.

        Parameters: `display_name` of the user in the room, for a deprecated condition; `shared`,
        a dictionary for all evaluations of this event, so that the default rules that users have
        in common are asked once.
        """
        if event.sender == self.user_id:
            return ()
        for kind in KINDS:
            for rule in self._candidates(kind, event):
                if shared is None or id(rule) not in _SHARED:
                    matches = rule.matches(event, display_name)
                elif (known := shared.get(id(rule))) is not None:
                    matches = known
                else:
                    matches = shared[id(rule)] = rule.matches(event, display_name)
                if matches:
                    return rule.actions
        return ()

    def _candidates(self, kind: str, event: PushEvent) -> Iterable[PushRule]:
        if kind not in ("room", "sender"):
            return self._rules[kind]
        by_id, wanted = self._rooms, event.room_id
        if kind == "sender":
            by_id, wanted = self._senders, event.sender
        rule = by_id.get(wanted) if isinstance(wanted, str) else None
        return () if rule is None else (rule,)

    def differs_in(self, room_id: str) -> bool:
        """Whether events in the room may be of another class for this user than by default."""
        everywhere, rooms = self._deviates()
        return everywhere or room_id.lower() in rooms

    @property
    def is_default(self) -> bool:
        """Whether events are of the default class for this user in every room."""
        return self._deviates() == (False, frozenset())

    def _deviates(self) -> tuple[bool, frozenset[str]]:
        """Whether the rules deviate everywhere; else, the rooms in which they do, in lower case."""
        if self._deviation is None:
            rooms: set[str] = set()
            everywhere = any(
                _effect(self._changed(rule)) != _effect(rule)
                for rule in default_rules(self.user_id)
            )
            for rule in (rule for rules in self.own.values() for rule in rules if rule.can_match):
                room_id = _only_room(rule)
                if room_id is None:
                    everywhere = True
                else:
                    rooms.add(room_id)
            self._deviation = (everywhere, frozenset(rooms))
        return self._deviation


def _effect(rule: PushRule) -> EventClass | None:
    """What a rule does to the events that it matches; None if it matches none."""
    return class_of(rule.actions) if rule.enabled else None


def _only_room(rule: PushRule) -> str | None:
    """The one room in which a rule applies, in lower case; None if there are others."""
    if rule.kind == "room":
        return rule.rule_id.lower()
    return next(filter(None, map(is_about_room, rule.conditions)), None)


def event_class(event: PushEvent) -> EventClass:
    """The class of an event under the default rules, for all but its sender and those whom
    `highlighted_users` and `invited_user` name."""
    event_type = event.fields.get("type")
    wanted = event_type.lower() if isinstance(event_type, str) else ""
    for tests, found in _BY_TYPE.get(wanted, _OF_ANY_TYPE):
        for test in tests:
            if not test(event, None):
                break
        else:
            return found
    return EventClass.NONE


def _type_of(rule: PushRule) -> str | None:
    """The one type of the events that a rule can match, in lower case; None: of any."""
    for condition in rule.conditions:
        if condition.get("kind") == "event_match" and condition.get("key") == "type":
            pattern: str = condition["pattern"]
            return None if "*" in pattern or "?" in pattern else pattern.lower()
    return None


def _for_type(event_type: str | None) -> tuple[tuple[tuple[Condition, ...], EventClass], ...]:
    """Of the rules that can match events of a type: their conditions but for that of the type, and
    what they make of these events."""

    def is_open(condition: JsonObject) -> bool:
        is_of_type = condition.get("kind") == "event_match" and condition.get("key") == "type"
        return not (is_of_type and condition["pattern"].lower() == event_type)

    return tuple(
        (tuple(map(compile_condition, filter(is_open, rule.conditions))), class_of(rule.actions))
        for rule in _FOR_EVERYBODY
        if rule.can_match and _type_of(rule) in (None, event_type)
    )


_OF_ANY_TYPE = _for_type(None)
_BY_TYPE = {name: _for_type(name) for name in filter(None, map(_type_of, _FOR_EVERYBODY))}
"""Most rules are for one type of events, and each event is asked about."""


def highlighted_users(event: PushEvent) -> list[str]:
    """The users for whom the default rules highlight an event because it mentions them."""
    mentioned = [u for u in mentioned_users(event.fields.get("content")) if u != event.sender]
    if mentioned and any(rule.matches(event, None) for rule in _BEFORE_INVITE + _BEFORE_MENTION):
        return []
    return mentioned


def invited_user(event: PushEvent) -> str | None:
    """The user whom the default rules notify of an event because it invites them."""
    user_id = event.fields.get("state_key")
    if not isinstance(user_id, str) or user_id == event.sender:
        return None
    if any(rule.matches(event, None) for rule in _BEFORE_INVITE):
        return None
    return user_id if _invite_for_me(user_id).matches(event, None) else None
