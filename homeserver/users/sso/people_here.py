"""Whom the people of providers are here: connections to accounts, and new accounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import MatrixError, forbidden, user_deactivated
from homeserver.core.ids import UserID
from homeserver.core.threepids import EMAIL
from homeserver.users.accounts import Accounts
from homeserver.users.sso.people import Suggestion
from storage import accepted_terms, external_ids, profiles, threepids, users
from storage.database import Database
from storage.external_ids import ExternalIdRow
from storage.transaction import Transaction


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody who has no account yet, and what one would have."""

    provider: str
    subject: str
    suggestion: Suggestion


class PeopleHere:
    """Finds, connects and makes accounts. `terms`: documents and their versions, which people
    accept before they have one."""

    def __init__(
        self,
        db: Database,
        clock: IReactorTime,
        accounts: Accounts,
        terms: Mapping[str, str],
        refuse_new: Callable[[], MatrixError] | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._accounts = accounts
        self._terms = dict(terms)
        self._refuse_new = refuse_new

    async def known(self, provider: str, subject: str) -> UserID | None:
        """The account of a person, also if it is closed."""
        found = await self._db.read(external_ids.get_user, provider, subject)
        return None if found is None else UserID(found)

    async def providers_of(self, user_id: str) -> set[str]:
        """The providers whose people may use an account."""
        return {row.provider for row in await self.connections(user_id)}

    async def connections(self, user_id: str) -> list[ExternalIdRow]:
        """What providers know the owner of an account by."""
        return await self._db.read(external_ids.of_user, user_id)

    async def connect_existing(self, stranger: Stranger) -> UserID | None:
        """Connect a person with the account that has their localpart; None if there is none that
        they could use."""
        if not stranger.suggestion.localpart:
            return None
        user_id = self._accounts.new_user_id(stranger.suggestion.localpart)
        return await self._db.write(self._connect_existing, user_id, stranger)

    def _connect_existing(
        self, txn: Transaction, user_id: UserID, stranger: Stranger
    ) -> UserID | None:
        user = users.lock_user(txn, user_id)
        if user is None or user.deactivated or user.is_guest or user.user_type is not None:
            return None
        if self._accounts.claimed(user_id):
            return None
        return self._connect(txn, user_id, stranger.provider, stranger.subject)

    async def connect(self, user_id: str, provider: str, subject: str) -> None:
        """Connect a person with an account, for operators. Raises MatrixError: 403 M_FORBIDDEN,
        M_USER_DEACTIVATED."""
        await self._db.write(self._connect_active, UserID(user_id), provider, subject)

    def _connect_active(
        self, txn: Transaction, user_id: UserID, provider: str, subject: str
    ) -> None:
        user = users.lock_user(txn, user_id)
        if user is None or user.deactivated:
            raise user_deactivated()
        self._connect(txn, user_id, provider, subject)

    def _connect(self, txn: Transaction, user_id: UserID, provider: str, subject: str) -> UserID:
        if not external_ids.add(txn, provider, subject, user_id, self._now()):
            raise forbidden("This person has another account.")
        return user_id

    async def disconnect(self, user_id: str, provider: str, subject: str) -> bool:
        """Take a connection away; False if there is none."""
        return await self._db.write(external_ids.delete, provider, subject, user_id)

    def check_new(self) -> None:
        """Raises MatrixError while no accounts are made."""
        if self._refuse_new is not None:
            raise self._refuse_new()

    async def check_name(self, localpart: str) -> None:
        """Raises MatrixError 400: M_USER_IN_USE, M_INVALID_USERNAME, M_EXCLUSIVE."""
        await self._accounts.check_available(self._accounts.new_user_id(localpart))

    async def create(self, stranger: Stranger, localpart: str) -> UserID:
        """Make an account. Raises MatrixError 400: M_USER_IN_USE, M_INVALID_USERNAME,
        M_EXCLUSIVE."""
        self.check_new()
        try:
            await self.check_name(localpart)
            user_id = self._accounts.new_user_id(localpart)
            return await self._db.write(self._create, user_id, stranger)
        except MatrixError as error:
            # By another request of the same person, it may be.
            known = await self.known(stranger.provider, stranger.subject)
            if known is None or error.errcode != "M_USER_IN_USE":
                raise
            return known

    def _create(self, txn: Transaction, user_id: UserID, stranger: Stranger) -> UserID:
        known = external_ids.get_user(txn, stranger.provider, stranger.subject)
        if known is not None:
            # Made by another request of the same person meanwhile.
            return UserID(known)
        suggestion = stranger.suggestion
        self._accounts.create_in(txn, user_id, None)
        self._connect(txn, user_id, stranger.provider, stranger.subject)
        if suggestion.display_name:
            profiles.put_field(txn, user_id, "displayname", suggestion.display_name)
        if suggestion.email and threepids.get_user(txn, EMAIL, suggestion.email) is None:
            threepids.add(txn, EMAIL, suggestion.email, user_id, self._now())
        accepted_terms.put(txn, user_id, self._terms, self._now())
        return user_id

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
