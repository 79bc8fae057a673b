"""What there is of a user: sessions, rooms, account data, counts; and finding users."""

from __future__ import annotations

import msgspec

from homeserver.api.client.whois import Connection, DeviceInfo, Session, WhoisAnswer, connection
from homeserver.core.errors import invalid_param, not_found
from homeserver.core.ids import UserID
from homeserver.core.threepids import InvalidAddress, canonical
from homeserver.core.types import JsonObject
from homeserver.users.accounts import Accounts
from homeserver.users.administration import AccountAdministration
from homeserver.users.contacts import Contacts
from homeserver.users.devices import Devices
from homeserver.users.user_records import UserRecords
from homeserver.web.endpoint import Auth, endpoint

_V1 = "/_synapse/admin/v1"
_USER = f"{_V1}/users/{{user_id}}"


class JoinedRooms(msgspec.Struct):
    joined_rooms: list[str]
    total: int


class Memberships(msgspec.Struct):
    memberships: dict[str, str]


class AccountDataItems(msgspec.Struct):
    global_: dict[str, JsonObject] = msgspec.field(name="global")
    rooms: dict[str, dict[str, JsonObject]]


class AccountDataAnswer(msgspec.Struct):
    account_data: AccountDataItems


class SinceQuery(msgspec.Struct, frozen=True):
    """In milliseconds."""

    from_ts: int


class InviteCount(msgspec.Struct):
    invite_count: int


class JoinCount(msgspec.Struct):
    cumulative_joined_room_count: int


class FoundUserId(msgspec.Struct):
    user_id: str


class UsernameQuery(msgspec.Struct, frozen=True):
    username: str


class Available(msgspec.Struct):
    available: bool


@endpoint("GET", f"{_V1}/whois/{{user_id}}", auth=Auth.ADMIN, rate="read")
async def get_whois(
    user_id: UserID, administration: AccountAdministration, devices: Devices
) -> WhoisAnswer:
    """From where a user was last seen, all devices together."""
    await administration.known(user_id)
    rows = [row for row in await devices.of_user(user_id) if row.last_seen_ts is not None]
    seen: list[Connection] = [connection(row) for row in rows]
    return WhoisAnswer(user_id, {"": DeviceInfo([Session(seen)])})


@endpoint("GET", f"{_USER}/joined_rooms", auth=Auth.ADMIN, rate="read")
async def get_joined_rooms(user_id: UserID, records: UserRecords) -> JoinedRooms:
    """The rooms that a user is in, as far as this server knows."""
    found = await records.memberships(user_id, ("join",))
    return JoinedRooms(sorted(found), len(found))


@endpoint("GET", f"{_USER}/memberships", auth=Auth.ADMIN, rate="read")
async def get_memberships(user_id: UserID, records: UserRecords) -> Memberships:
    """What a user is in each room that they have to do with."""
    return Memberships(await records.memberships(user_id))


@endpoint("GET", f"{_USER}/accountdata", auth=Auth.ADMIN, rate="read")
async def get_account_data(
    user_id: UserID, administration: AccountAdministration, records: UserRecords
) -> AccountDataAnswer:
    """The account data of a user."""
    await administration.known(user_id)
    return AccountDataAnswer(AccountDataItems(*await records.account_data(user_id)))


@endpoint("GET", f"{_USER}/sent_invite_count", auth=Auth.ADMIN, rate="read")
async def get_sent_invite_count(
    user_id: UserID, query: SinceQuery, records: UserRecords
) -> InviteCount:
    """How many invites a user has sent since a time."""
    return InviteCount(await records.invites_sent(user_id, query.from_ts))


@endpoint("GET", f"{_USER}/cumulative_joined_room_count", auth=Auth.ADMIN, rate="read")
async def get_joined_room_count(
    user_id: UserID, query: SinceQuery, records: UserRecords
) -> JoinCount:
    """How many rooms a user has joined since a time."""
    return JoinCount(await records.rooms_joined(user_id, query.from_ts))


# Finding


@endpoint(
    "GET",
    f"{_V1}/auth_providers/{{provider}}/users/{{external_id}}",
    auth=Auth.ADMIN,
    rate="read",
)
async def find_by_external_id(provider: str, external_id: str, records: UserRecords) -> FoundUserId:
    """The account of somebody whom a single sign-on provider knows."""
    found = await records.of_external_id(provider, external_id)
    if found is None:
        raise not_found("User not found.")
    return FoundUserId(found)


@endpoint("GET", f"{_V1}/threepid/{{medium}}/users/{{address}}", auth=Auth.ADMIN, rate="read")
async def find_by_threepid(medium: str, address: str, contacts: Contacts) -> FoundUserId:
    """The account that an e-mail address or telephone number belongs to."""
    try:
        found = await contacts.owner(medium, canonical(medium, address))
    except InvalidAddress:
        found = None
    if found is None:
        raise not_found("User not found.")
    return FoundUserId(found)


@endpoint("GET", f"{_V1}/username_available", auth=Auth.ADMIN, rate="read")
async def get_username_available(query: UsernameQuery, accounts: Accounts) -> Available:
    """Whether an account of this name could be made, also where registration is off."""
    if not query.username:
        raise invalid_param("Query parameter username must not be empty.")
    await accounts.check_available(accounts.new_user_id(query.username))
    return Available(True)


ENDPOINTS = [
    get_whois,
    get_joined_rooms,
    get_memberships,
    get_account_data,
    get_sent_invite_count,
    get_joined_room_count,
    find_by_external_id,
    find_by_threepid,
    get_username_available,
]
