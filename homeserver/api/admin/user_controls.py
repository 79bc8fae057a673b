"""What administrators do about users, and in their name: shadow bans, limits, logging in as them,
redacting what they sent."""

from __future__ import annotations

import msgspec

from homeserver.api.admin import audit
from homeserver.api.client.versions import UNSTABLE_FEATURES
from homeserver.core.errors import invalid_param
from homeserver.core.ids import RoomID, UserID
from homeserver.rooms.mass_redactions import DEFAULT_LIMIT, MassRedactions, WantedRedactions
from homeserver.users.administration import AccountAdministration
from homeserver.users.puppets import Puppets
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint
from storage.rate_overrides import RateOverride

_V1 = "/_synapse/admin/v1"
_USER = f"{_V1}/users/{{user_id}}"

_FEATURES = {
    "msc3881": "org.matrix.msc3881",
    "msc3575": "org.matrix.simplified_msc3575",
    "msc4222": "org.matrix.msc4222",
}
"""Features that can be switched for single users elsewhere, by what clients find them by."""

MAX_RATE = 1_000_000


class Limit(msgspec.Struct, frozen=True, omit_defaults=True):
    messages_per_second: int | None = None
    burst_count: int | None = None


class LoginBody(msgspec.Struct, frozen=True):
    valid_until_ms: int | None = None


class LoginAnswer(msgspec.Struct):
    access_token: str


class KeysAnswer(msgspec.Struct):
    updatable_without_uia_before_ms: int


class RedactBody(msgspec.Struct, frozen=True):
    rooms: list[RoomID]
    reason: str | None = None
    limit: int | None = None
    use_admin: bool | None = None
    after_ts: int | None = None
    before_ts: int | None = None


class RedactAnswer(msgspec.Struct):
    redact_id: str


class RedactStatus(msgspec.Struct, omit_defaults=True):
    status: str
    failed_redactions: dict[str, str]
    error: str | None = None


class Features(msgspec.Struct, frozen=True):
    features: dict[str, bool]


# Shadow bans


@endpoint("POST", f"{_USER}/shadow_ban", auth=Auth.ADMIN, rate="write")
async def shadow_ban(
    requester: Requester, user_id: UserID, administration: AccountAdministration
) -> Empty:
    """Let what the user sends reach nobody."""
    await administration.set_shadow_banned(user_id, True)
    audit.record(requester, "shadow_ban", user_id)
    return EMPTY


@endpoint("DELETE", f"{_USER}/shadow_ban", auth=Auth.ADMIN, rate="write")
async def lift_shadow_ban(
    requester: Requester, user_id: UserID, administration: AccountAdministration
) -> Empty:
    """Let what the user sends reach people again."""
    await administration.set_shadow_banned(user_id, False)
    audit.record(requester, "lift_shadow_ban", user_id)
    return EMPTY


# Limits


@endpoint("GET", f"{_USER}/override_ratelimit", auth=Auth.ADMIN, rate="read")
async def get_override(user_id: UserID, administration: AccountAdministration) -> Limit:
    """The limit that was set for a user; nothing if there is none."""
    found = await administration.rate_override(user_id)
    return Limit() if found is None else Limit(found.per_second, found.burst)


@endpoint("POST", f"{_USER}/override_ratelimit", auth=Auth.ADMIN, rate="write", optional_body=True)
async def set_override(
    requester: Requester, user_id: UserID, body: Limit, administration: AccountAdministration
) -> Limit:
    """Set a limit for a user; 0 messages a second: without limit."""
    limit = RateOverride(body.messages_per_second or 0, body.burst_count or 0)
    names = ("messages_per_second", "burst_count")
    for name, value in zip(names, limit, strict=True):
        if not 0 <= value <= MAX_RATE:
            raise invalid_param(f"{name}: from 0 to {MAX_RATE}.")
    await administration.override_rate(user_id, limit)
    audit.record(requester, "set_limit", user_id, **limit._asdict())
    return Limit(limit.per_second, limit.burst)


@endpoint("DELETE", f"{_USER}/override_ratelimit", auth=Auth.ADMIN, rate="write")
async def delete_override(
    requester: Requester, user_id: UserID, administration: AccountAdministration
) -> Empty:
    """Let the usual limits apply to a user again."""
    await administration.override_rate(user_id, None)
    audit.record(requester, "drop_limit", user_id)
    return EMPTY


# Acting as users


@endpoint("POST", f"{_USER}/login", auth=Auth.ADMIN, rate="write", optional_body=True)
async def login_as(
    requester: Requester,
    user_id: UserID,
    body: LoginBody,
    administration: AccountAdministration,
    puppets: Puppets,
) -> LoginAnswer:
    """An access token for a user's account, of no device."""
    administration.check_local(user_id)
    token = await puppets.begin(requester, user_id, body.valid_until_ms)
    audit.record(requester, "log_in_as", user_id, valid_until_ms=body.valid_until_ms)
    return LoginAnswer(token)


@endpoint(
    "POST",
    f"{_USER}/_allow_cross_signing_replacement_without_uia",
    auth=Auth.ADMIN,
    rate="write",
)
async def allow_key_replacement(
    requester: Requester, user_id: UserID, administration: AccountAdministration
) -> KeysAnswer:
    """Let a user replace cross-signing keys for ten minutes without confirmation."""
    until_ms = await administration.allow_key_replacement(user_id)
    audit.record(requester, "allow_replacement_of_cross_signing_keys", user_id)
    return KeysAnswer(until_ms)


# Redacting


@endpoint("POST", f"{_V1}/user/{{user_id}}/redact", auth=Auth.ADMIN, rate="write")
async def redact_user(
    requester: Requester, user_id: UserID, body: RedactBody, redactions: MassRedactions
) -> RedactAnswer:
    """Have what a user sent redacted."""
    wanted = WantedRedactions(
        body.rooms,
        body.reason,
        DEFAULT_LIMIT if body.limit is None else body.limit,
        bool(body.use_admin),
        body.after_ts,
        body.before_ts,
    )
    redact_id = await redactions.begin(requester.user_id, user_id, wanted)
    audit.record(requester, "redact_events", user_id, rooms=body.rooms, reason=body.reason)
    return RedactAnswer(redact_id)


@endpoint("GET", f"{_V1}/user/redact_status/{{redact_id}}", auth=Auth.ADMIN, rate="read")
async def get_redact_status(redact_id: str, redactions: MassRedactions) -> RedactStatus:
    """How far such redactions are."""
    found = await redactions.get(redact_id)
    return RedactStatus(found.status, found.failures, found.error)


# Features


@endpoint("GET", f"{_V1}/experimental_features/{{user_id}}", auth=Auth.ADMIN, rate="read")
async def get_features(user_id: UserID, administration: AccountAdministration) -> Features:
    """Which features a user has: the same as everybody."""
    await administration.known(user_id)
    return Features(_features())


@endpoint("PUT", f"{_V1}/experimental_features/{{user_id}}", auth=Auth.ADMIN, rate="write")
async def put_features(
    user_id: UserID, body: Features, administration: AccountAdministration
) -> Empty:
    """Take note of what is so already; nothing is switched for single users."""
    await administration.known(user_id)
    there = _features()
    for name, wanted in body.features.items():
        if name not in there:
            raise invalid_param(f"features: {name!r} is not known.")
        if there[name] != wanted:
            state = "on" if there[name] else "off"
            raise invalid_param(f"features: {name} is {state} for everybody.")
    return EMPTY


def _features() -> dict[str, bool]:
    return {name: UNSTABLE_FEATURES.get(flag, False) for name, flag in _FEATURES.items()}


ENDPOINTS = [
    shadow_ban,
    lift_shadow_ban,
    get_override,
    set_override,
    delete_override,
    login_as,
    allow_key_replacement,
    redact_user,
    get_redact_status,
    get_features,
    put_features,
]
