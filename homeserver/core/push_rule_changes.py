"""Changes of a user's push rules as the API asks for them.

Client-server API, "Push Rules: API". Each function returns a new `Ruleset`, or raises MatrixError:
404 M_NOT_FOUND for a rule that is not there; 400 M_INVALID_PARAM, M_BAD_JSON or M_MISSING_PARAM
for a request that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from homeserver.core.errors import bad_json, invalid_param, missing_param, not_found, unknown
from homeserver.core.push_conditions import check_condition, check_pattern, is_about_content
from homeserver.core.push_rules import (
    CONDITIONAL_KINDS,
    KINDS,
    POSTCONTENT,
    Actions,
    DefaultChange,
    PushRule,
    Ruleset,
)
from homeserver.core.types import JsonObject

MAX_RULES = 5000
"""Most rules of one kind."""
MAX_SEARCHES = 200
"""Most rules that search the content of events: each costs time for each event."""
MAX_CONDITIONS = 20
MAX_ACTIONS = 20
MAX_RULE_ID_LENGTH = 512
MAX_RULE_SIZE = 8192
"""Largest conditions or actions of one rule: characters in strings, plus 8 for each value."""

_HISTORICAL = ("dont_notify", "coalesce")


def put_rule(
    ruleset: Ruleset,
    kind: str,
    rule_id: str,
    body: Any,
    *,
    before: str | None = None,
    after: str | None = None,
) -> Ruleset:
    """Add a rule of the user, or change it; a changed rule stays enabled or disabled.

    `before` and `after` name a rule of the user: the place is next above or below it. Without
    them a new rule comes first and a changed one stays where it is. If both are given, `before`
    counts; a rule that is not there gives 400 M_UNKNOWN.
    """
    _check_kind(kind)
    if kind == POSTCONTENT:
        raise invalid_param("Push rules of this kind are the server's.")
    _check_rule_id(rule_id)
    rule = _parse_rule(kind, rule_id, body)
    rules = ruleset.own[kind]
    old = next((known for known in rules if known.rule_id == rule_id), None)
    if old is not None:
        rule = replace(rule, enabled=old.enabled)
    elif len(rules) >= MAX_RULES:
        raise invalid_param(f"There are {MAX_RULES} push rules of this kind already.")
    others = [known for known in rules if known.rule_id != rule_id]
    target = before if before is not None else after
    if target is not None and (target != rule_id or old is None):
        place = _index_of(others, target) + (0 if before is not None else 1)
    else:
        place = 0 if old is None else rules.index(old)
    others.insert(place, rule)
    changed = _with_own(ruleset, kind, others)
    _check_searches(changed, rule)
    return changed


def delete_rule(ruleset: Ruleset, kind: str, rule_id: str) -> Ruleset:
    """Remove a rule of the user. Default rules cannot be removed: 400 M_INVALID_PARAM."""
    if get_rule(ruleset, kind, rule_id).default:
        raise invalid_param("A server-default push rule cannot be deleted.")
    return _with_own(ruleset, kind, (r for r in ruleset.own[kind] if r.rule_id != rule_id))


def get_rule(ruleset: Ruleset, kind: str, rule_id: str) -> PushRule:
    """A rule, default or not."""
    _check_kind(kind)
    rule = ruleset.find(kind, rule_id)
    if rule is None:
        raise not_found("The push rule was not found.")
    return rule


def set_enabled(ruleset: Ruleset, kind: str, rule_id: str, body: Any) -> Ruleset:
    """Switch a rule on or off, by the body of `PUT …/enabled`."""
    rule = get_rule(ruleset, kind, rule_id)
    enabled = _required(body, "enabled")
    if not isinstance(enabled, bool):
        raise bad_json("enabled must be true or false.")
    if not rule.default:
        return _with_changed(ruleset, replace(rule, enabled=enabled))
    change = ruleset.changes.get(rule_id, DefaultChange())._replace(enabled=enabled)
    return Ruleset(ruleset.user_id, ruleset.own, {**ruleset.changes, rule_id: change})


def set_actions(ruleset: Ruleset, kind: str, rule_id: str, body: Any) -> Ruleset:
    """Change the actions of a rule, by the body of `PUT …/actions`."""
    rule = get_rule(ruleset, kind, rule_id)
    actions = _parse_actions(_required(body, "actions"))
    if not rule.default:
        return _with_changed(ruleset, replace(rule, actions=actions))
    change = ruleset.changes.get(rule_id, DefaultChange())._replace(actions=actions)
    return Ruleset(ruleset.user_id, ruleset.own, {**ruleset.changes, rule_id: change})


def _with_own(ruleset: Ruleset, kind: str, rules: Iterable[PushRule]) -> Ruleset:
    return Ruleset(ruleset.user_id, {**ruleset.own, kind: tuple(rules)}, ruleset.changes)


def _with_changed(ruleset: Ruleset, rule: PushRule) -> Ruleset:
    rules = (rule if r.rule_id == rule.rule_id else r for r in ruleset.own[rule.kind])
    return _with_own(ruleset, rule.kind, rules)


def _index_of(rules: list[PushRule], rule_id: str) -> int:
    for index, rule in enumerate(rules):
        if rule.rule_id == rule_id:
            return index
    raise unknown("before/after rule not found.")


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise invalid_param(f"The kind of a push rule must be one of {', '.join(KINDS)}.")


def _check_rule_id(rule_id: str) -> None:
    if not rule_id or len(rule_id) > MAX_RULE_ID_LENGTH:
        raise invalid_param(f"A rule ID must have 1 to {MAX_RULE_ID_LENGTH} characters.")
    if rule_id.startswith("."):
        raise invalid_param("Rule IDs with a leading dot are for server-default rules.")
    if "/" in rule_id or "\\" in rule_id or "\0" in rule_id:
        raise invalid_param("Slashes and backslashes are not allowed in a rule ID.")


def _check_searches(ruleset: Ruleset, rule: PushRule) -> None:
    if not _searches(rule):
        return
    count = sum(_searches(known) for rules in ruleset.own.values() for known in rules)
    if count > MAX_SEARCHES:
        raise invalid_param(f"There are {MAX_SEARCHES} push rules on the content already.")


def _searches(rule: PushRule) -> int:
    return int(rule.kind == "content") + sum(map(is_about_content, rule.conditions))


def _parse_rule(kind: str, rule_id: str, body: Any) -> PushRule:
    actions = _parse_actions(_required(body, "actions"))
    if kind in CONDITIONAL_KINDS:
        return PushRule(kind, rule_id, actions, _parse_conditions(_required(body, "conditions")))
    if kind != "content":
        return PushRule(kind, rule_id, actions)
    pattern = _required(body, "pattern")
    if not isinstance(pattern, str):
        raise bad_json("pattern must be a string.")
    check_pattern(pattern, "pattern")
    return PushRule(kind, rule_id, actions, pattern=pattern)


def _parse_conditions(conditions: Any) -> tuple[JsonObject, ...]:
    if not isinstance(conditions, list):
        raise bad_json("conditions must be a list.")
    if len(conditions) > MAX_CONDITIONS:
        raise invalid_param(f"A push rule has at most {MAX_CONDITIONS} conditions.")
    for index, condition in enumerate(conditions):
        check_condition(condition, f"conditions[{index}]")
    _check_size(conditions, "conditions")
    return tuple(conditions)


def _parse_actions(actions: Any) -> Actions:
    """Actions as kept: the historical ones are dropped."""
    if not isinstance(actions, list):
        raise bad_json("actions must be a list.")
    if len(actions) > MAX_ACTIONS:
        raise invalid_param(f"A push rule has at most {MAX_ACTIONS} actions.")
    for action in actions:
        if isinstance(action, dict):
            if not isinstance(action.get("set_tweak"), str):
                raise invalid_param("An action that is an object must have a set_tweak string.")
        elif not isinstance(action, str):
            raise bad_json("An action must be a string or an object.")
        elif action != "notify" and action not in _HISTORICAL:
            raise invalid_param("An action must be notify or set_tweak.")
    _check_size(actions, "actions")
    return tuple(action for action in actions if action not in _HISTORICAL)


def _check_size(value: Any, name: str) -> None:
    size, pending = 0, [value]
    while pending:
        value = pending.pop()
        size += 8 + (len(value) if isinstance(value, str) else 0)
        if isinstance(value, list):
            pending.extend(value)
        elif isinstance(value, dict):
            pending.extend(value.keys())
            pending.extend(value.values())
        if size > MAX_RULE_SIZE:
            raise invalid_param(f"{name} are too large.")


def _required(body: Any, key: str) -> Any:
    if not isinstance(body, dict):
        raise bad_json("The body must be an object.")
    if key not in body:
        raise missing_param(key)
    return body[key]
