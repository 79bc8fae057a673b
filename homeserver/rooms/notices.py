"""What the server itself tells a user (client-server API, "Server Notices").

1. Each user has one room for it, made with the first notice. They are invited, and cannot reject
   that; they may leave once they have joined, and are invited again with the next notice.
2. Notices are sent by an account without a password that nobody else can have.
"""

from __future__ import annotations

from homeserver.core.errors import MatrixError, forbidden, not_found
from homeserver.core.ids import RoomID, UserID
from homeserver.core.types import JsonObject
from homeserver.rooms.create import RoomCreation, WantedRoom
from homeserver.rooms.membership import Membership
from homeserver.rooms.send import Sending
from homeserver.users.accounts import Accounts
from homeserver.users.profiles import Profiles
from homeserver.users.secret_tokens import new_token
from homeserver.users.tags import Tags
from homeserver.web.request import Requester
from storage import memberships, notice_rooms, rooms, users
from storage.database import Database
from storage.transaction import Transaction

TAG = "m.server_notice"
USER_TYPE = "server_notices"
"""Of the account that sends notices."""


class _HasRoom(MatrixError):
    """Another process made the user's room at the same moment."""

    def __init__(self) -> None:
        super().__init__(500, "M_UNKNOWN", "The user has a room for notices.")


class ServerNotices:
    """Sends notices.

    Parameters: `sender`, who sends them; `sender_name` and `room_name`, what users see.
    """

    def __init__(
        self,
        db: Database,
        creation: RoomCreation,
        members: Membership,
        sending: Sending,
        accounts: Accounts,
        profiles: Profiles,
        tags: Tags,
        *,
        sender: UserID,
        sender_name: str,
        room_name: str,
    ) -> None:
        self._db = db
        self._creation = creation
        self._members = members
        self._sending = sending
        self._accounts = accounts
        self._profiles = profiles
        self._tags = tags
        self._sender = sender
        self._sender_name = sender_name
        self._room_name = room_name

    async def send(self, user_id: UserID, text: str) -> str:
        """Tell a user something; the event ID.

        Raises:
            MatrixError: 404 `M_NOT_FOUND` if there is no such account, or it is closed; 403
                `M_FORBIDDEN` if somebody else has the account that sends notices.
        """
        content = {"msgtype": "m.server_notice", "body": text}
        return await self.send_event(user_id, "m.room.message", content)

    async def send_event(
        self,
        user_id: UserID,
        event_type: str,
        content: JsonObject,
        *,
        state_key: str | None = None,
        txn_id: str | None = None,
    ) -> str:
        """Send any event, or state, to a user's room; the event ID.

        Parameters: `txn_id`, with which repeating a request sends nothing anew.

        Raises:
            MatrixError: as `send`, and those of `Sending`.
        """
        user = await self._db.read(users.get_user, user_id)
        if user is None or user.deactivated or user_id == self._sender:
            raise not_found("There is no such account.")
        await self._be_there()
        requester = Requester(self._sender)
        room_id = await self._room(requester, user_id)
        if state_key is not None:
            return await self._sending.send_state(
                requester, room_id, event_type, state_key, content
            )
        return await self._sending.send_event(
            requester, room_id, event_type, content, txn_id or new_token()
        )

    async def _be_there(self) -> None:
        sender = await self._db.read(users.get_user, self._sender)
        if sender is None:
            await self._make_sender()
            sender = await self._db.read(users.get_user, self._sender)
        if sender is None or sender.user_type != USER_TYPE:
            raise forbidden(f"{self._sender} is somebody's account: server_notices.localpart")

    async def _make_sender(self) -> None:
        try:
            await self._accounts.create(self._sender, None, user_type=USER_TYPE)
        except MatrixError:
            return  # Another notice did so at the same moment.
        await self._profiles.set_field(
            Requester(self._sender), self._sender, "displayname", self._sender_name
        )

    async def _room(self, requester: Requester, user_id: UserID) -> RoomID:
        """The user's room, which they are in or invited to."""
        known = await self._db.read(_room_of, user_id)
        if known is None:
            try:
                known = await self._make_room(requester, user_id), "invite"
            except _HasRoom:
                known = await self._db.read(_room_of, user_id)
        assert known is not None
        room_id, membership = known
        if membership not in ("join", "invite"):
            await self._members.invite(requester, RoomID(room_id), user_id, must_invite=True)
        await self._tags.put(Requester(user_id), user_id, RoomID(room_id), TAG, {})
        return RoomID(room_id)

    async def _make_room(self, requester: Requester, user_id: UserID) -> str:
        def within(txn: Transaction, room_nid: int, room_id: str) -> None:
            if not notice_rooms.set_room(txn, user_id, room_id):
                raise _HasRoom

        wanted = WantedRoom(
            preset="private_chat",
            name=self._room_name,
            invite=[user_id],
            creation_content={"m.federate": False},
            power_level_content_override={"users_default": -10, "invite": 50},
        )
        return await self._creation.create(requester, wanted, within=within, must_invite=True)


def _room_of(txn: Transaction, user_id: str) -> tuple[str, str | None] | None:
    """The user's room, and their membership of it."""
    room_id = notice_rooms.room_of(txn, user_id)
    if room_id is None:
        return None
    room_nid = rooms.nid(txn, room_id)
    row = memberships.get(txn, room_nid, user_id) if room_nid is not None else None
    return room_id, row.membership if row is not None else None
