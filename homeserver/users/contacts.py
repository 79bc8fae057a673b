"""The addresses of an account (Client-server API, "Adding Account Administrative Contact
Information")."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, forbidden, invalid_param
from homeserver.core.ids import UserID
from homeserver.core.threepids import InvalidAddress, canonical
from homeserver.users.identity_servers import IdentityServers
from homeserver.users.uia import Confirmed, InteractiveAuth
from homeserver.users.validation import ADD, EmailValidation, in_use
from storage import bound_threepids, pushers, threepids, users, validations
from storage.bound_threepids import BoundRow
from storage.database import Database
from storage.threepids import ThreepidRow
from storage.transaction import Transaction

_MAX_STORED = 512


class Contacts:
    """Adds addresses to accounts and takes them away; has them published and withdrawn."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        validation: EmailValidation,
        identity: IdentityServers,
        uia: InteractiveAuth,
    ) -> None:
        self._db = db
        self._clock = clock
        self._validation = validation
        self._identity = identity
        self._uia = uia

    async def of_user(self, user_id: str) -> list[ThreepidRow]:
        """The addresses of an account."""
        return await self._db.read(threepids.of_user, user_id)

    async def owner(self, medium: str, address: str) -> UserID | None:
        """Whose address this is."""
        found = await self._db.read(threepids.get_user, medium, address)
        return None if found is None else UserID(found)

    async def check_proved(self, sid: str, client_secret: str) -> None:
        """Raises MatrixError as `add`, before anything else is asked of the client."""
        proved = await self._validation.proved(sid, client_secret, ADD)
        if await self._db.read(threepids.get_user, proved.medium, proved.address) is not None:
            raise in_use()

    async def add(self, user_id: str, sid: str, client_secret: str, confirmed: Confirmed) -> None:
        """Add an address that was proved for this. Raises MatrixError 400: M_THREEPID_IN_USE,
        M_SESSION_NOT_VALIDATED, M_SESSION_EXPIRED, M_NO_VALID_SESSION.
        """
        await self._db.write(self._add, user_id, sid, client_secret, confirmed)

    def _add(
        self, txn: Transaction, user_id: str, sid: str, client_secret: str, confirmed: Confirmed
    ) -> None:
        user = users.lock_user(txn, user_id)
        if user is None or user.deactivated:
            raise forbidden("This account is closed.")
        proved = self._validation.proved_in(txn, sid, client_secret, ADD)
        now_ms = int(self._clock.seconds() * 1000)
        if not threepids.add(
            txn, proved.medium, proved.address, user_id, now_ms, proved.validated_ts
        ):
            raise in_use()
        self._validation.use_in(txn, sid)
        self._uia.consume_in(txn, confirmed)

    async def delete(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Take an address from an account; whether it is published nowhere any more.

        It goes from here also where the identity server does not answer. An account that has no
        such address is left as it is. Raises MatrixError 400 M_INVALID_PARAM.
        """
        address = _checked(medium, address)
        await self._db.write(self._delete, user_id, medium, address)
        try:
            return await self._withdraw(user_id, medium, address, id_server)
        except MatrixError:
            return False

    def _delete(self, txn: Transaction, user_id: str, medium: str, address: str) -> None:
        if threepids.delete(txn, medium, address, user_id):
            # Nor can a link that is still on its way set a new password.
            validations.delete_of_address(txn, medium, address, validations.PASSWORD)
            pushers.delete_address(txn, user_id, address)

    async def bind(
        self, user_id: str, id_server: str, id_access_token: str, sid: str, client_secret: str
    ) -> None:
        """Have an address published. Raises MatrixError as `IdentityServers.bind`."""
        association = await self._identity.bind(
            id_server, id_access_token, sid, client_secret, user_id
        )
        medium, address = association.get("medium"), association.get("address")
        if not (_is_storable(medium) and _is_storable(address)):
            raise MatrixError(502, "M_UNKNOWN", "The identity server gave no usable answer.")
        row = BoundRow(user_id, str(medium), str(address), id_server)
        await self._db.write(bound_threepids.add, row)

    async def unbind(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Have an address withdrawn; False where that is not possible, or nothing is known of it.

        Raises MatrixError: 400 M_INVALID_PARAM, those of `IdentityServers.unbind`.
        """
        return await self._withdraw(user_id, medium, _checked(medium, address), id_server)

    async def unbind_all(self, user_id: str) -> bool:
        """Have all addresses withdrawn, as far as possible; whether all are."""
        done = True
        for row in await self._db.read(bound_threepids.of_user, user_id):
            try:
                done &= await self._withdraw(user_id, row.medium, row.address, row.id_server)
            except MatrixError:
                done = False
        return done

    async def unbind_gone(self, user_id: str, before: Sequence[ThreepidRow]) -> None:
        """Have addresses withdrawn that were the account's and are not any more, as far as
        possible."""
        kept = {(row.medium, row.address) for row in await self.of_user(user_id)}
        for row in before:
            if (row.medium, row.address) not in kept:
                try:
                    await self._withdraw(user_id, row.medium, row.address, None)
                except MatrixError:
                    continue  # It is the account's no more whatever an identity server says.

    async def _withdraw(
        self, user_id: str, medium: str, address: str, id_server: str | None
    ) -> bool:
        if id_server is None:
            servers = await self._db.read(bound_threepids.servers, user_id, medium, address)
        else:
            servers = [id_server]
        done = bool(servers)
        for server in servers:
            if await self._identity.unbind(server, medium, address, user_id):
                row = BoundRow(user_id, medium, address, server)
                await self._db.write(bound_threepids.delete, row)
            else:
                done = False
        return done


def _checked(medium: str, address: str) -> str:
    try:
        return canonical(medium, address)
    except InvalidAddress as error:
        raise invalid_param(f"This is not a valid address: {error}.")


def _is_storable(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_STORED and value.isprintable()
