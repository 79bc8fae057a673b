"""Account data (Client-server API, "Client Config")."""

from __future__ import annotations

from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.users.account_data import AccountData
from homeserver.web.endpoint import EMPTY, Auth, Empty, Requester, endpoint

_GLOBAL = "/_matrix/client/v3/user/{user_id}/account_data/{data_type}"
_ROOM = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{data_type}"
# MSC3391
_DELETE = "/_matrix/client/unstable/org.matrix.msc3391/user/{user_id}/"


@endpoint("GET", _GLOBAL, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_account_data(
    requester: Requester, user_id: UserID, data_type: str, account_data: AccountData
) -> JsonObject:
    """A global item of the requester's account data."""
    return await account_data.get(requester, user_id, data_type)


@endpoint("PUT", _GLOBAL, auth=Auth.ACCESS_TOKEN, rate="write", lenient_json=True)
async def put_account_data(
    requester: Requester,
    user_id: UserID,
    data_type: str,
    body: JsonObject,
    account_data: AccountData,
) -> Empty:
    """Set a global item of the requester's account data."""
    await account_data.put(requester, user_id, data_type, body)
    return EMPTY


@endpoint("GET", _ROOM, auth=Auth.ACCESS_TOKEN, rate="read")
async def get_room_account_data(
    requester: Requester,
    user_id: UserID,
    room_id: RoomID,
    data_type: str,
    account_data: AccountData,
) -> JsonObject:
    """An item of the requester's account data of a room."""
    return await account_data.get(requester, user_id, data_type, room_id)


@endpoint("PUT", _ROOM, auth=Auth.ACCESS_TOKEN, rate="write", lenient_json=True)
async def put_room_account_data(
    requester: Requester,
    user_id: UserID,
    room_id: RoomID,
    data_type: str,
    body: JsonObject,
    account_data: AccountData,
) -> Empty:
    """Set an item of the requester's account data of a room."""
    await account_data.put(requester, user_id, data_type, body, room_id)
    return EMPTY


@endpoint("DELETE", f"{_DELETE}account_data/{{data_type}}", auth=Auth.ACCESS_TOKEN, rate="write")
async def delete_account_data(
    requester: Requester, user_id: UserID, data_type: str, account_data: AccountData
) -> Empty:
    """Delete a global item of the requester's account data (MSC3391)."""
    await account_data.delete(requester, user_id, data_type)
    return EMPTY


@endpoint(
    "DELETE",
    f"{_DELETE}rooms/{{room_id}}/account_data/{{data_type}}",
    auth=Auth.ACCESS_TOKEN,
    rate="write",
)
async def delete_room_account_data(
    requester: Requester,
    user_id: UserID,
    room_id: RoomID,
    data_type: str,
    account_data: AccountData,
) -> Empty:
    """Delete an item of the requester's account data of a room (MSC3391)."""
    await account_data.delete(requester, user_id, data_type, room_id)
    return EMPTY


ENDPOINTS = [
    get_account_data,
    put_account_data,
    get_room_account_data,
    put_room_account_data,
    delete_account_data,
    delete_room_account_data,
]
