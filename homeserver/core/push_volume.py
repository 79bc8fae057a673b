"""How much of a room a user is told, where one word says it.

Most users who change push rules mute rooms or reduce them to mentions. For them no event has to
be judged one by one, and nothing is stored for each: the class of an event and the user's volume
of the room together say what the event does (`heard`). Only where the rules do something else
(`must_judge`) a user's ruleset is evaluated for each event.
"""

from __future__ import annotations

from enum import IntEnum

from homeserver.core.push_conditions import is_about_room
from homeserver.core.push_rules import (
    MASTER,
    EventClass,
    PushRule,
    Ruleset,
    class_of,
    default_rules,
    notifies,
)

_GROUP_MESSAGES = (".m.rule.message", ".m.rule.encrypted")
_MESSAGES = (*_GROUP_MESSAGES, ".m.rule.room_one_to_one", ".m.rule.encrypted_room_one_to_one")
CALL = "m.call.invite"
"""The one type of event on which `must_judge` may depend."""


class Volume(IntEnum):
    """What a user is told of a room."""

    NOTHING = 0
    """The room is muted."""
    HIGHLIGHTS = 1
    """What highlights for everybody or mentions the user; not every message."""
    EVERYTHING = 2


def heard(volume: Volume, event_class: int) -> EventClass:
    """What an event of a class does at a volume, for users whom it does not mention or invite."""
    if volume is Volume.EVERYTHING or (
        volume is Volume.HIGHLIGHTS and event_class == EventClass.HIGHLIGHT
    ):
        return EventClass(event_class)
    return EventClass.NONE


def volume(ruleset: Ruleset, room_id: str) -> Volume:
    """The user's volume of a room."""
    if _is_silent_master(ruleset) or _is_muted(ruleset, room_id):
        return Volume.NOTHING
    rule = _room_rule(ruleset, room_id)
    if rule is not None:
        return Volume.EVERYTHING if notifies(rule.actions) else Volume.HIGHLIGHTS
    quiet = all(_is_silent(ruleset, rule_id) for rule_id in _GROUP_MESSAGES)
    return Volume.HIGHLIGHTS if quiet else Volume.EVERYTHING


def must_judge(ruleset: Ruleset, room_id: str, event_type: str) -> bool:
    """Whether the ruleset may do to events of a room what the volume does not say."""
    if volume(ruleset, room_id) is Volume.NOTHING:
        return False
    for rule in _own_rules(ruleset):
        only_room = _only_room(rule)
        if only_room is None or (only_room == room_id.lower() and not _is_quiet_room(rule)):
            return True
    changed = _changed_defaults(ruleset)
    if not changed <= set(_MESSAGES):
        return True
    if not changed or _room_rule(ruleset, room_id) is not None:
        return False
    # With all four of them silent only calls are told that are not highlights.
    return event_type == CALL or not all(_is_silent(ruleset, rule_id) for rule_id in _MESSAGES)


def is_exceptional(ruleset: Ruleset) -> bool:
    """Whether `must_judge` holds in any room for any event."""
    if _is_silent_master(ruleset):
        return False
    if _changed_defaults(ruleset):
        return True
    return any(
        _only_room(rule) is None or not (_is_quiet_room(rule) or _is_mute(rule))
        for rule in _own_rules(ruleset)
    )


def _own_rules(ruleset: Ruleset) -> list[PushRule]:
    return [rule for rules in ruleset.own.values() for rule in rules if rule.can_match]


def _room_rule(ruleset: Ruleset, room_id: str) -> PushRule | None:
    for rule in ruleset.own["room"]:
        if rule.rule_id == room_id and rule.enabled:
            return rule
    return None


def _only_room(rule: PushRule) -> str | None:
    """The one room, in lower case, in which a rule applies; None if there are others."""
    if rule.kind == "room":
        return rule.rule_id.lower()
    return next(filter(None, map(is_about_room, rule.conditions)), None)


def _is_quiet_room(rule: PushRule) -> bool:
    return rule.kind == "room" and not notifies(rule.actions)


def _is_mute(rule: PushRule) -> bool:
    return (
        rule.kind == "override"
        and len(rule.conditions) == 1
        and is_about_room(rule.conditions[0]) is not None
        and not notifies(rule.actions)
    )


def _is_muted(ruleset: Ruleset, room_id: str) -> bool:
    """Whether a rule silences the whole room, before any other of the user's could speak."""
    wanted = room_id.lower()
    for rule in ruleset.own["override"]:
        if not rule.can_match:
            continue
        if _is_mute(rule) and _only_room(rule) == wanted:
            return True
        if _only_room(rule) in (None, wanted) and notifies(rule.actions):
            return False
    return False


def _is_silent_master(ruleset: Ruleset) -> bool:
    master = ruleset.find("override", MASTER)
    return master is not None and master.enabled and not notifies(master.actions)


def _is_silent(ruleset: Ruleset, rule_id: str) -> bool:
    rule = ruleset.find("underride", rule_id)
    return rule is None or not rule.enabled or not notifies(rule.actions)


def _changed_defaults(ruleset: Ruleset) -> set[str]:
    """Default rules that no longer do what they do by default."""
    if not ruleset.changes:
        return set()
    found = set()
    for rule in default_rules(ruleset.user_id):
        if rule.rule_id in ruleset.changes:
            now = ruleset.find(rule.kind, rule.rule_id)
            if now is not None and _effect(now) != _effect(rule):
                found.add(rule.rule_id)
    return found


def _effect(rule: PushRule) -> EventClass | None:
    return class_of(rule.actions) if rule.enabled else None
