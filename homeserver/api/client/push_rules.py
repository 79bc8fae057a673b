"""Push rules (Client-server API, "Push Rules: API")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.core.errors import invalid_param
from homeserver.core.push_rules import KINDS
from homeserver.core.types import JsonObject
from homeserver.users.push_rules import PushRules
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_ALL = "/_matrix/client/v3/pushrules"
_GLOBAL = _ALL + "/global"
_KIND = _GLOBAL + "/{kind}"
_RULE = _KIND + "/{rule_id}"
_ENABLED = _RULE + "/enabled"
_ACTIONS = _RULE + "/actions"


class AllRulesets(msgspec.Struct, frozen=True):
    """All rulesets: there is one."""

    everywhere: JsonObject = msgspec.field(name="global")


class RuleEnabled(msgspec.Struct, frozen=True):
    """Whether a rule is switched on."""

    enabled: bool


class RuleActions(msgspec.Struct, frozen=True):
    """What a rule does."""

    actions: list[Any]


class Neighbours(msgspec.Struct, frozen=True):
    """The user's rule before or after which a rule is put."""

    before: str | None = None
    after: str | None = None


# Clients ask with and without a slash at the end.
@endpoint("GET", _ALL + "/", auth=Auth.ACCESS_TOKEN, rate="read", also=(_ALL,))
async def get_push_rules(requester: Requester, push_rules: PushRules) -> AllRulesets:
    """All push rules of the requester."""
    return AllRulesets((await push_rules.ruleset(requester.user_id)).to_json())


@endpoint("GET", _GLOBAL + "/", auth=Auth.ACCESS_TOKEN, rate="read", also=(_GLOBAL,))
async def get_global_push_rules(requester: Requester, push_rules: PushRules) -> JsonObject:
    """The requester's rules of all kinds."""
    return (await push_rules.ruleset(requester.user_id)).to_json()


@endpoint("GET", _KIND + "/", auth=Auth.ACCESS_TOKEN, rate="read", also=(_KIND,))
async def get_push_rules_of_kind(
    requester: Requester, kind: str, push_rules: PushRules
) -> list[JsonObject]:
    """The requester's rules of one kind, as before version 1.0 of the specification."""
    if kind not in KINDS:
        raise invalid_param(f"The kind of a push rule must be one of {', '.join(KINDS)}.")
    rules: list[JsonObject] = (await push_rules.ruleset(requester.user_id)).to_json()[kind]
    return rules


@endpoint("GET", _RULE, auth=Auth.ACCESS_TOKEN, rate="read", also=(_RULE + "/",))
async def get_push_rule(
    requester: Requester, kind: str, rule_id: str, push_rules: PushRules
) -> JsonObject:
    """One rule."""
    return (await push_rules.rule(requester.user_id, kind, rule_id)).to_json()


@endpoint("PUT", _RULE, auth=Auth.ACCESS_TOKEN, rate="write", lenient_json=True)
async def put_push_rule(
    requester: Requester,
    kind: str,
    rule_id: str,
    body: JsonObject,
    query: Neighbours,
    push_rules: PushRules,
) -> Empty:
    """Add a rule, or change it."""
    await push_rules.put(requester.user_id, kind, rule_id, body, query.before, query.after)
    return EMPTY


@endpoint("DELETE", _RULE, auth=Auth.ACCESS_TOKEN, rate="write", also=(_RULE + "/",))
async def delete_push_rule(
    requester: Requester, kind: str, rule_id: str, push_rules: PushRules
) -> Empty:
    """Remove a rule."""
    await push_rules.delete(requester.user_id, kind, rule_id)
    return EMPTY


@endpoint("GET", _ENABLED, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_push_rule_enabled(
    requester: Requester, kind: str, rule_id: str, push_rules: PushRules
) -> RuleEnabled:
    """Whether a rule is switched on."""
    return RuleEnabled((await push_rules.rule(requester.user_id, kind, rule_id)).enabled)


@endpoint("PUT", _ENABLED, auth=Auth.ACCESS_TOKEN, rate="write")
async def put_push_rule_enabled(
    requester: Requester, kind: str, rule_id: str, body: JsonObject, push_rules: PushRules
) -> Empty:
    """Switch a rule on or off."""
    await push_rules.set_enabled(requester.user_id, kind, rule_id, body)
    return EMPTY


@endpoint("GET", _ACTIONS, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_push_rule_actions(
    requester: Requester, kind: str, rule_id: str, push_rules: PushRules
) -> RuleActions:
    """What a rule does."""
    rule = await push_rules.rule(requester.user_id, kind, rule_id)
    return RuleActions(list(rule.actions))


@endpoint("PUT", _ACTIONS, auth=Auth.ACCESS_TOKEN, rate="write", lenient_json=True)
async def put_push_rule_actions(
    requester: Requester, kind: str, rule_id: str, body: JsonObject, push_rules: PushRules
) -> Empty:
    """Change what a rule does."""
    await push_rules.set_actions(requester.user_id, kind, rule_id, body)
    return EMPTY


ENDPOINTS = [
    get_push_rules,
    get_global_push_rules,
    get_push_rules_of_kind,
    get_push_rule,
    put_push_rule,
    delete_push_rule,
    get_push_rule_enabled,
    put_push_rule_enabled,
    get_push_rule_actions,
    put_push_rule_actions,
]
