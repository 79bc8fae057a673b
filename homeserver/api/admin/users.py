"""Accounts: listing, showing, making and changing them (Synapse's "User Admin API")."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from homeserver.api.admin import audit
from homeserver.api.admin.paging import Page
from homeserver.core.errors import invalid_param
from homeserver.core.ids import UserID
from homeserver.users.account_changes import AccountChange
from homeserver.users.accounts import Accounts
from homeserver.users.administration import AccountAdministration, AccountDetails
from homeserver.users.appservices import Appservices
from homeserver.users.contacts import Contacts
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, Response, endpoint
from storage.user_lists import Listed, Wanted

_V1 = "/_synapse/admin/v1"
_USERS = "/_synapse/admin/v2/users"

Order = Literal[
    "name",
    "displayname",
    "avatar_url",
    "is_guest",
    "admin",
    "deactivated",
    "user_type",
    "shadow_banned",
    "creation_ts",
    "last_seen_ts",
    "locked",
]


class UsersQuery(Page, frozen=True):
    order_by: Order = "name"
    user_id: str | None = None
    name: str | None = None
    guests: bool = True
    admins: bool | None = None
    deactivated: bool | None = None
    locked: bool = False
    suspended: bool | None = None
    shadow_banned: bool | None = None
    not_user_type: list[str] = []


class ListedUser(msgspec.Struct):
    name: str
    user_type: str | None
    is_guest: bool
    admin: bool
    deactivated: bool
    shadow_banned: bool
    displayname: str | None
    avatar_url: str | None
    creation_ts: int
    erased: bool
    last_seen_ts: int | None
    locked: bool


class UsersAnswer(msgspec.Struct, omit_defaults=True):
    users: list[ListedUser]
    total: int
    next_token: str | None = None


class Threepid(msgspec.Struct, frozen=True):
    medium: str
    address: str


class ShownThreepid(msgspec.Struct):
    medium: str
    address: str
    validated_at: int
    added_at: int


class ExternalId(msgspec.Struct, frozen=True):
    auth_provider: str
    external_id: str


class UserAnswer(msgspec.Struct):
    """`creation_ts` in seconds, as Synapse has it here."""

    name: str
    admin: bool
    deactivated: bool
    locked: bool
    shadow_banned: bool
    creation_ts: int
    appservice_id: str | None
    consent_server_notice_sent: str | None
    consent_version: str | None
    consent_ts: int | None
    user_type: str | None
    is_guest: bool
    suspended: bool
    displayname: str | None
    avatar_url: str | None
    threepids: list[ShownThreepid]
    external_ids: list[ExternalId]
    erased: bool
    last_seen_ts: int | None


class UserBody(msgspec.Struct, frozen=True):
    password: str | None = None
    logout_devices: bool = True
    displayname: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    threepids: list[Threepid] | None = None
    external_ids: list[ExternalId] | None = None
    admin: bool | None = None
    deactivated: bool | None = None
    user_type: str | UnsetType | None = UNSET
    locked: bool | None = None

    def change(self) -> AccountChange:
        given = {"displayname": self.displayname, "avatar_url": self.avatar_url}
        return AccountChange(
            password=self.password,
            logout_devices=self.logout_devices,
            is_admin=self.admin,
            deactivated=self.deactivated,
            locked=self.locked,
            user_type=None if self.user_type is UNSET else (self.user_type,),
            profile={name: value for name, value in given.items() if value is not UNSET},
            threepids=_pairs(self.threepids, "medium", "address"),
            external_ids=_pairs(self.external_ids, "auth_provider", "external_id"),
        )


def _pairs(
    given: list[Threepid] | list[ExternalId] | None, first: str, second: str
) -> list[tuple[str, str]] | None:
    if given is None:
        return None
    return [(getattr(each, first), getattr(each, second)) for each in given]


class DeactivateBody(msgspec.Struct, frozen=True):
    erase: bool = False


class DeactivateAnswer(msgspec.Struct):
    id_server_unbind_result: str


class SuspendBody(msgspec.Struct, frozen=True):
    suspend: bool


class ResetPasswordBody(msgspec.Struct, frozen=True):
    new_password: str
    logout_devices: bool = True


class AdminFlag(msgspec.Struct, frozen=True):
    admin: bool


class SearchQuery(msgspec.Struct, frozen=True):
    term: str


class FoundUser(msgspec.Struct):
    name: str
    is_guest: bool
    admin: bool
    user_type: str | None


def _listed(row: Listed) -> ListedUser:
    return ListedUser(
        row.user_id,
        row.user_type,
        row.is_guest,
        row.is_admin,
        row.deactivated,
        row.shadow_banned,
        row.displayname,
        row.avatar_url,
        row.created_ts,
        row.erased,
        row.last_seen_ts,
        row.locked,
    )


async def _list(
    query: UsersQuery, deactivated: bool | None, administration: AccountAdministration
) -> UsersAnswer:
    start, limit = query.bounds()
    wanted = Wanted(
        user_id=query.user_id,
        name=query.name,
        guests=None if query.guests else False,
        admins=query.admins,
        deactivated=deactivated,
        locked=None if query.locked else False,
        suspended=query.suspended,
        shadow_banned=query.shadow_banned,
        not_types=query.not_user_type,
    )
    rows, total = await administration.search(
        wanted, query.order_by, start, limit, backwards=query.dir == "b"
    )
    following = query.next(total)
    token = None if following is None else str(following)
    return UsersAnswer([_listed(row) for row in rows], total, token)


@endpoint("GET", _USERS, auth=Auth.ADMIN, rate="read")
async def get_users(query: UsersQuery, administration: AccountAdministration) -> UsersAnswer:
    """A page of the accounts: without closed ones, unless they are asked for too."""
    return await _list(query, None if query.deactivated else False, administration)


@endpoint("GET", "/_synapse/admin/v3/users", auth=Auth.ADMIN, rate="read")
async def get_users_v3(query: UsersQuery, administration: AccountAdministration) -> UsersAnswer:
    """A page of the accounts: closed ones, or open ones, or both."""
    return await _list(query, query.deactivated, administration)


def _answer(found: AccountDetails, appservices: Appservices) -> UserAnswer:
    user = found.user
    owners = [each.appservice_id for each in appservices.all if each.claims_user(user.user_id)]
    version, consent_ts = found.consent or (None, None)
    return UserAnswer(
        name=user.user_id,
        admin=user.is_admin,
        deactivated=user.deactivated,
        locked=user.locked,
        shadow_banned=user.shadow_banned,
        creation_ts=user.created_ts // 1000,
        appservice_id=owners[0] if owners else None,
        consent_server_notice_sent=None,
        consent_version=version,
        consent_ts=consent_ts,
        user_type=user.user_type,
        is_guest=user.is_guest,
        suspended=user.suspended,
        displayname=found.displayname,
        avatar_url=found.avatar_url,
        threepids=[ShownThreepid(*row) for row in found.threepids],
        external_ids=[ExternalId(row.provider, row.external_id) for row in found.external_ids],
        erased=user.erased,
        last_seen_ts=found.last_seen_ts,
    )


def _told(body: UserBody) -> dict[str, object]:
    """What of a change is logged: rights as they are now, of all else only that it changed."""
    given = {
        name: value
        for name, value in msgspec.structs.asdict(body).items()
        if value is not UNSET and value is not None and name != "logout_devices"
    }
    flags = {f"is_{name}": value for name, value in given.items() if isinstance(value, bool)}
    return {"fields": sorted(given), **flags}


@endpoint("GET", f"{_USERS}/{{user_id}}", auth=Auth.ADMIN, rate="read")
async def get_user(
    user_id: UserID, administration: AccountAdministration, appservices: Appservices
) -> UserAnswer:
    """One account."""
    return _answer(await administration.details(user_id), appservices)


@endpoint(
    "PUT",
    f"{_USERS}/{{user_id}}",
    auth=Auth.ADMIN,
    rate="write",
    optional_body=True,
    returns=UserAnswer,
)
async def put_user(
    requester: Requester,
    user_id: UserID,
    body: UserBody,
    administration: AccountAdministration,
    appservices: Appservices,
    contacts: Contacts,
) -> Response:
    """Make an account (answered by 201), or change it."""
    change = body.change()
    before = await contacts.of_user(user_id)
    made = await administration.put(requester, user_id, change)
    audit.record(requester, "create_account" if made else "change_account", user_id, **_told(body))
    if change.deactivated:
        await contacts.unbind_all(user_id)
    elif change.threepids is not None:
        await contacts.unbind_gone(user_id, before)
    answer = _answer(await administration.details(user_id), appservices)
    return Response(201 if made else 200, msgspec.to_builtins(answer))


@endpoint(
    "POST", f"{_V1}/deactivate/{{user_id}}", auth=Auth.ADMIN, rate="write", optional_body=True
)
async def deactivate_user(
    requester: Requester,
    user_id: UserID,
    body: DeactivateBody,
    administration: AccountAdministration,
    accounts: Accounts,
    contacts: Contacts,
) -> DeactivateAnswer:
    """Close an account, and erase what it says if that is wanted."""
    await administration.known(user_id)
    withdrawn = await contacts.unbind_all(user_id)
    await accounts.deactivate(user_id, erase=body.erase)
    audit.record(requester, "deactivate_account", user_id, erase=body.erase)
    return DeactivateAnswer("success" if withdrawn else "no-support")


@endpoint("PUT", f"{_V1}/suspend/{{user_id}}", auth=Auth.ADMIN, rate="write")
async def suspend_user(
    requester: Requester, user_id: UserID, body: SuspendBody, administration: AccountAdministration
) -> dict[str, bool]:
    """Suspend an account, or lift that."""
    await administration.set_suspended(requester, user_id, body.suspend)
    audit.record(requester, "suspend_account", user_id, suspend=body.suspend)
    return {f"user_{user_id}_suspended": body.suspend}


@endpoint("POST", f"{_V1}/reset_password/{{user_id}}", auth=Auth.ADMIN, rate="write")
async def reset_password(
    requester: Requester,
    user_id: UserID,
    body: ResetPasswordBody,
    administration: AccountAdministration,
    accounts: Accounts,
) -> Empty:
    """Set a user's password."""
    administration.check_local(user_id)
    await accounts.set_password(user_id, body.new_password, logout_devices=body.logout_devices)
    audit.record(requester, "reset_password", user_id, logout_devices=body.logout_devices)
    return EMPTY


@endpoint("GET", f"{_V1}/users/{{user_id}}/admin", auth=Auth.ADMIN, rate="read")
async def get_admin(user_id: UserID, administration: AccountAdministration) -> AdminFlag:
    """Whether an account is an administrator's."""
    return AdminFlag((await administration.known(user_id)).is_admin)


@endpoint("PUT", f"{_V1}/users/{{user_id}}/admin", auth=Auth.ADMIN, rate="write")
async def put_admin(
    requester: Requester, user_id: UserID, body: AdminFlag, administration: AccountAdministration
) -> Empty:
    """Make a user an administrator, or no longer one."""
    await administration.set_admin(requester, user_id, body.admin)
    audit.record(requester, "set_administrator", user_id, is_admin=body.admin)
    return EMPTY


@endpoint("GET", f"{_V1}/search_users/{{user_id}}", auth=Auth.ADMIN, rate="read")
async def search_users(
    user_id: UserID, query: SearchQuery, administration: AccountAdministration
) -> list[FoundUser]:
    """Accounts whose IDs have a text in them; `user_id` is any user of this server."""
    administration.check_local(user_id)
    if not query.term:
        raise invalid_param("Query parameter term must not be empty.")
    wanted = Wanted(user_id=query.term)
    rows, _ = await administration.search(wanted, "name", 0, 100, backwards=False)
    return [FoundUser(row.user_id, row.is_guest, row.is_admin, row.user_type) for row in rows]


ENDPOINTS = [
    get_users,
    get_users_v3,
    get_user,
    put_user,
    deactivate_user,
    suspend_user,
    reset_password,
    get_admin,
    put_admin,
    search_users,
]
