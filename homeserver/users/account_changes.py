"""What an administrator changes of an account, or wants of a new one, at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeserver.core import errors
from homeserver.core.ids import InvalidIdentifier, UserID, map_localpart
from homeserver.core.threepids import InvalidAddress, canonical
from homeserver.users.accounts import Accounts
from homeserver.users.profiles import MAX_AVATAR_URL_CHARACTERS, MAX_DISPLAYNAME_CHARACTERS
from homeserver.users.sessions import Sessions
from homeserver.web.request import Requester
from storage import erasures, external_ids, one_time_tokens, threepids, tokens, users, validations
from storage.transaction import Transaction

USER_TYPES = ("bot", "support")
MAX_CONTACTS = 100
"""Addresses, or people of providers, that are given to an account at once."""
MAX_EXTERNAL_ID = 1000
"""Characters of a provider's name, and of what it knows somebody by."""

_PROFILE_LIMITS = {
    "displayname": MAX_DISPLAYNAME_CHARACTERS,
    "avatar_url": MAX_AVATAR_URL_CHARACTERS,
}


@dataclass(frozen=True, slots=True)
class AccountChange:
    """None, or nothing in `profile`: as it is.

    Parameters: `threepids` (medium and address) and `external_ids` (provider and what it knows
    the person by) are all that the account has then; `user_type` in a tuple, which may hold None;
    `logout_devices`, whether a new password ends all sessions.
    """

    password: str | None = None
    logout_devices: bool = True
    is_admin: bool | None = None
    deactivated: bool | None = None
    locked: bool | None = None
    user_type: tuple[str | None] | None = None
    profile: Mapping[str, str | None] = field(default_factory=dict)
    threepids: Sequence[tuple[str, str]] | None = None
    external_ids: Sequence[tuple[str, str]] | None = None

    def check(self, requester: Requester, user_id: UserID) -> None:
        """Raises MatrixError 400 `M_INVALID_PARAM` for what nobody may ask for."""
        if user_id == requester.user_id:
            if self.is_admin is False:
                raise errors.invalid_param("admin: you cannot take your own rights away.")
            if self.locked:
                raise errors.invalid_param("locked: this is your own account.")
        if self.deactivated and self.is_admin:
            raise errors.invalid_param("admin: a closed account has no rights.")
        if self.user_type is not None and self.user_type[0] not in (None, *USER_TYPES):
            raise errors.invalid_param(f"user_type: one of {', '.join(USER_TYPES)}, or null.")
        for name, value in self.profile.items():
            if value is not None and len(value) > _PROFILE_LIMITS[name]:
                raise errors.invalid_param(f"{name}: at most {_PROFILE_LIMITS[name]} characters.")
        avatar = self.profile.get("avatar_url")
        if avatar and not avatar.startswith("mxc://"):
            raise errors.invalid_param("avatar_url: this is no mxc:// URI.")
        for name, given in (("threepids", self.threepids), ("external_ids", self.external_ids)):
            if given is not None and len(given) > MAX_CONTACTS:
                raise errors.invalid_param(f"{name}: at most {MAX_CONTACTS}.")
        for pair in self.external_ids or ():
            if any(not 0 < len(text) <= MAX_EXTERNAL_ID for text in pair):
                raise errors.invalid_param(
                    f"external_ids: texts have 1 to {MAX_EXTERNAL_ID} characters."
                )
        self.canonical_threepids()

    def canonical_threepids(self) -> list[tuple[str, str]]:
        """The addresses as they are stored. Raises MatrixError 400 `M_INVALID_PARAM`."""
        try:
            found = [(medium, canonical(medium, text)) for medium, text in self.threepids or ()]
        except InvalidAddress as error:
            raise errors.invalid_param(f"threepids: {error}.") from None
        return list(dict.fromkeys(found))


def apply_change(
    txn: Transaction,
    user_id: UserID,
    change: AccountChange,
    password_hash: str | None,
    accounts: Accounts,
    sessions: Sessions,
    now_ms: int,
) -> bool:
    """Make or change an account, but for its profile and closing it; whether it was made.

    Raises MatrixError: 400 `M_INVALID_PARAM`, `M_INVALID_USERNAME`, `M_USER_IN_USE`.
    """
    user = users.lock_user(txn, user_id)
    made = user is None
    if user is None:
        _check_new(user_id)
        accounts.create_in(txn, user_id, password_hash, is_admin=bool(change.is_admin))
    elif user.deactivated:
        _reopen(txn, user_id, change, password_hash)
    elif password_hash is not None:
        users.set_password_hash(txn, user_id, password_hash)
    _set_flags(txn, user_id, change)
    if change.threepids is not None:
        _replace_threepids(txn, user_id, change.canonical_threepids(), now_ms)
    if change.external_ids is not None:
        _replace_external_ids(txn, user_id, change.external_ids, now_ms)
    txn.invalidate(tokens.CACHE, user_id)
    if password_hash is not None and change.logout_devices and not made:
        one_time_tokens.delete_of_user(txn, user_id)
        sessions.end_all_in(txn, user_id)  # last: it may advance the clock
    return made


def _check_new(user_id: UserID) -> None:
    try:
        is_new = map_localpart(user_id.localpart) == user_id.localpart
    except InvalidIdentifier as error:
        raise errors.invalid_username(f"This user name cannot be used: {error.reason}.") from None
    if not is_new:
        raise errors.invalid_username("A new user name has a-z, 0-9 and . _ = - / + only.")


def _reopen(
    txn: Transaction, user_id: UserID, change: AccountChange, password_hash: str | None
) -> None:
    if change.deactivated is False:
        users.reactivate(txn, user_id, password_hash)
        erasures.forget(txn, user_id)
        return
    if password_hash is not None:
        raise errors.invalid_param("password: this account is closed.")
    if change.is_admin:
        raise errors.invalid_param("admin: this account is closed.")
    if change.threepids or change.external_ids:
        raise errors.invalid_param("threepids, external_ids: this account is closed.")


def _set_flags(txn: Transaction, user_id: str, change: AccountChange) -> None:
    if change.is_admin is not None:
        users.set_admin(txn, user_id, change.is_admin)
    if change.locked is not None:
        users.set_locked(txn, user_id, change.locked)
    if change.locked or change.is_admin is False:
        tokens.delete_by_puppeteer(txn, user_id)
    if change.user_type is not None:
        users.set_user_type(txn, user_id, change.user_type[0])


def _replace_threepids(
    txn: Transaction, user_id: str, wanted: Sequence[tuple[str, str]], now_ms: int
) -> None:
    for row in threepids.of_user(txn, user_id):
        if (row.medium, row.address) not in wanted:
            threepids.delete(txn, row.medium, row.address, user_id)
            # Nor can a link that is still on its way set a new password.
            validations.delete_of_address(txn, row.medium, row.address, validations.PASSWORD)
    for medium, address in wanted:
        if not threepids.add(txn, medium, address, user_id, now_ms):
            raise errors.invalid_param(f"threepids: {address} is somebody else's.")


def _replace_external_ids(
    txn: Transaction, user_id: str, wanted: Sequence[tuple[str, str]], now_ms: int
) -> None:
    for row in external_ids.of_user(txn, user_id):
        if (row.provider, row.external_id) not in wanted:
            external_ids.delete(txn, row.provider, row.external_id, user_id)
    for provider, external_id in wanted:
        if not external_ids.add(txn, provider, external_id, user_id, now_ms):
            raise errors.invalid_param(f"external_ids: {external_id} is connected already.")
