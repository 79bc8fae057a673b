"""Keys of end-to-end encryption (client-server API, "Key management API", "Cross-signing")."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from homeserver.core.errors import invalid_param
from homeserver.core.ids import InvalidIdentifier, UserID
from homeserver.core.tokens import SyncToken
from homeserver.core.types import JsonObject
from homeserver.encryption.claims import KeyClaims
from homeserver.encryption.cross_signing import CrossSigning
from homeserver.encryption.key_reads import FoundKeys
from homeserver.encryption.queries import KeyQueries
from homeserver.encryption.signatures import KeySignatures, check_number
from homeserver.encryption.uploads import KeyUploads
from homeserver.sync.device_list_changes import DeviceListChanges
from homeserver.users.uia import InteractiveAuth, Operation
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Requester, endpoint

Timeout = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""Milliseconds."""
MAX_USERS = 20_000
"""Users whose keys are asked for at once."""


class UploadBody(msgspec.Struct, frozen=True):
    device_keys: JsonObject | UnsetType = UNSET
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None
    unstable_fallback_keys: dict[str, Any] | None = msgspec.field(
        default=None, name="org.matrix.msc2732.fallback_keys"
    )


class UploadAnswer(msgspec.Struct):
    one_time_key_counts: dict[str, int]


@endpoint(
    "POST", "/_matrix/client/v3/keys/upload", auth=Auth.GUEST_OK, rate="write", strict_json=True
)
async def post_keys_upload(
    requester: Requester, body: UploadBody, uploads: KeyUploads
) -> UploadAnswer:
    """Publish keys of the requesting device."""
    return UploadAnswer(
        await uploads.upload(
            requester.user_id,
            requester.device_id,
            None if body.device_keys is UNSET else body.device_keys,
            body.one_time_keys or {},
            body.fallback_keys or body.unstable_fallback_keys or {},
        )
    )


class QueryBody(msgspec.Struct, frozen=True):
    """`device_keys`: user IDs to device IDs, none for all; `timeout` in milliseconds."""

    device_keys: dict[str, list[str]]
    timeout: Timeout | None = None


class QueryAnswer(msgspec.Struct):
    device_keys: dict[str, dict[str, JsonObject]]
    master_keys: dict[str, JsonObject]
    self_signing_keys: dict[str, JsonObject]
    user_signing_keys: dict[str, JsonObject]
    failures: dict[str, JsonObject]


@endpoint("POST", "/_matrix/client/v3/keys/query", auth=Auth.GUEST_OK, rate="read")
async def post_keys_query(
    requester: Requester, body: QueryBody, queries: KeyQueries
) -> QueryAnswer:
    """Keys of users and of their devices."""
    _check_users(body.device_keys)
    found = await queries.query(requester.user_id, body.device_keys, body.timeout)
    return _answer(found)


def _answer(found: FoundKeys) -> QueryAnswer:
    return QueryAnswer(
        found.device_keys,
        found.master_keys,
        found.self_signing_keys,
        found.user_signing_keys,
        found.failures,
    )


class ClaimBody(msgspec.Struct, frozen=True):
    """`one_time_keys`: user IDs to device IDs to algorithms; `timeout` in milliseconds."""

    one_time_keys: dict[str, dict[str, str]]
    timeout: Timeout | None = None


class ClaimAnswer(msgspec.Struct):
    one_time_keys: dict[str, dict[str, JsonObject]]
    failures: dict[str, JsonObject]


@endpoint("POST", "/_matrix/client/v3/keys/claim", auth=Auth.GUEST_OK, rate="write")
async def post_keys_claim(requester: Requester, body: ClaimBody, claims: KeyClaims) -> ClaimAnswer:
    """Take one-time keys of devices."""
    _check_users(body.one_time_keys)
    wanted = {
        user_id: {device_id: [algorithm] for device_id, algorithm in devices.items()}
        for user_id, devices in body.one_time_keys.items()
    }
    return ClaimAnswer(*await claims.claim(wanted, body.timeout))


class ManyClaimBody(msgspec.Struct, frozen=True):
    """As `ClaimBody`, each algorithm as often as keys of it are wanted (MSC3983)."""

    one_time_keys: dict[str, dict[str, list[str]]]
    timeout: Timeout | None = None


@endpoint(
    "POST",
    "/_matrix/client/unstable/org.matrix.msc3983/keys/claim",
    auth=Auth.GUEST_OK,
    rate="write",
)
async def post_many_keys_claim(
    requester: Requester, body: ManyClaimBody, claims: KeyClaims
) -> ClaimAnswer:
    """Take several one-time keys of devices (MSC3983)."""
    _check_users(body.one_time_keys)
    return ClaimAnswer(*await claims.claim(body.one_time_keys, body.timeout))


class ChangesQuery(msgspec.Struct, frozen=True):
    """`to` is a hint that this server does not need: the answer is up to now."""

    from_: str = msgspec.field(name="from")
    to: str | None = None


class ChangesAnswer(msgspec.Struct):
    changed: list[str]
    left: list[str]


@endpoint("GET", "/_matrix/client/v3/keys/changes", auth=Auth.GUEST_OK, rate="read")
async def get_keys_changes(
    requester: Requester, query: ChangesQuery, changes: DeviceListChanges
) -> ChangesAnswer:
    """Whose devices changed since a sync."""
    since = SyncToken.parse(query.from_).durable
    if query.to:
        SyncToken.parse(query.to)
    return ChangesAnswer(*await changes.since(requester.user_id, since))


class SigningKeysBody(msgspec.Struct, frozen=True):
    master_key: JsonObject | None = None
    self_signing_key: JsonObject | None = None
    user_signing_key: JsonObject | None = None
    auth: JsonObject | None = None


@endpoint(
    "POST",
    "/_matrix/client/v3/keys/device_signing/upload",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=("/_matrix/client/unstable/keys/device_signing/upload",),
    strict_json=True,
)
async def post_device_signing_upload(
    requester: Requester,
    body: SigningKeysBody,
    request: Request,
    uia: InteractiveAuth,
    cross_signing: CrossSigning,
) -> Empty:
    """Publish cross-signing keys of the requester; replacing them must be confirmed."""
    given = {
        "master": body.master_key,
        "self_signing": body.self_signing_key,
        "user_signing": body.user_signing_key,
    }
    user_id = requester.user_id
    keys, replaces = await cross_signing.check(user_id, given)
    if not replaces and await cross_signing.store(user_id, keys, confirmed=False):
        return EMPTY
    operation = Operation(request, requester, body.auth, given)
    await uia.confirm_owner(operation, trust_appservices=True)
    await cross_signing.store(user_id, keys, confirmed=True)
    return EMPTY


class SignaturesAnswer(msgspec.Struct):
    failures: dict[str, dict[str, JsonObject]]


@endpoint(
    "POST",
    "/_matrix/client/v3/keys/signatures/upload",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
    also=("/_matrix/client/unstable/keys/signatures/upload",),
)
async def post_signatures_upload(
    requester: Requester, body: JsonObject, queries: KeyQueries, signatures: KeySignatures
) -> SignaturesAnswer:
    """Publish signatures of the requester on keys."""
    _check_users(body)
    if not all(isinstance(keys, dict) for keys in body.values()):
        raise invalid_param("Users have objects of signed keys.")
    check_number(body)
    others = {user_id: ["-"] for user_id in body if not _is_at(user_id, requester.user_id)}
    found = await queries.query(requester.user_id, others) if others else FoundKeys()
    return SignaturesAnswer(await signatures.upload(requester.user_id, body, found.master_keys))


def _is_at(user_id: str, other: UserID) -> bool:
    return UserID(user_id).domain == other.domain


def _check_users(user_ids: Iterable[str]) -> None:
    names = list(user_ids)
    if len(names) > MAX_USERS:
        raise invalid_param(f"At most {MAX_USERS} users at once.")
    try:
        UserID.check_all(names)
    except InvalidIdentifier as error:
        raise invalid_param(str(error)) from None


ENDPOINTS = [
    post_keys_upload,
    post_keys_query,
    post_keys_claim,
    post_many_keys_claim,
    get_keys_changes,
    post_device_signing_upload,
    post_signatures_upload,
]
