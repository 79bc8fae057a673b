"""Users publish their cross-signing keys (client-server API, "Cross-signing").

The first set of keys, and the same keys again, need no more than the access token. Whatever
replaces a key is to be confirmed by the user, unless an administrator has allowed it for a while.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import IReactorTime

from homeserver.core import canonical, key_objects
from homeserver.core.errors import bad_json, forbidden, missing_param
from homeserver.core.key_objects import BadKey, CrossSigningKey, invalid_signature
from homeserver.core.types import JsonObject
from homeserver.users.hooks import UserHooks
from storage import cross_signing, devices, users
from storage.cross_signing import MASTER, CrossSigningRow
from storage.database import Database
from storage.transaction import Transaction

USAGES = ("master", "self_signing", "user_signing")


class CrossSigning:
    """Takes cross-signing keys of this server's users."""

    def __init__(self, db: Database, clock: IReactorTime, hooks: UserHooks) -> None:
        self._db = db
        self._clock = clock
        self._hooks = hooks

    async def check(
        self, user_id: str, keys: Mapping[str, JsonObject | None]
    ) -> tuple[dict[str, CrossSigningKey], bool]:
        """Check new keys by usage; also whether the user must confirm to `store` them.

        Raises MatrixError: 400 M_BAD_JSON, M_MISSING_PARAM without a master key, 400
        M_INVALID_SIGNATURE, 403 M_FORBIDDEN for a key with the name of one of the user's devices.
        """
        checked: dict[str, CrossSigningKey] = {}
        for usage, key in keys.items():
            if key is None:
                continue
            try:
                checked[usage] = key_objects.check_cross_signing_key(key, user_id, usage)
            except BadKey as error:
                raise bad_json(f"{usage}_key: {error}") from None
        if len({key.public_key for key in checked.values()}) != len(checked):
            raise forbidden("The keys must be different ones.")
        there, is_allowed = await self._db.read(self._stand, user_id)
        _check_master_signatures(user_id, checked, there)
        return checked, _replaces(checked, there) and not is_allowed

    async def store(
        self, user_id: str, keys: Mapping[str, CrossSigningKey], *, confirmed: bool
    ) -> bool:
        """Store checked keys; False if they replace others and that is not confirmed.

        Raises MatrixError as `check`.
        """
        return await self._db.write(self._store, user_id, keys, confirmed)

    def _store(
        self,
        txn: Transaction,
        user_id: str,
        keys: Mapping[str, CrossSigningKey],
        confirmed: bool,
    ) -> bool:
        if users.lock_user(txn, user_id) is None:
            raise forbidden("There is no such account.")
        there, is_allowed = self._stand(txn, user_id)
        if _replaces(keys, there) and not (confirmed or is_allowed):
            return False
        _check_master_signatures(user_id, keys, there)
        for key in keys.values():
            if devices.get_device(txn, user_id, key.public_key) is not None:
                raise forbidden("One of the keys is called like one of your devices.")
        new = [
            CrossSigningRow(user_id, usage, key.public_key, _stored(key, user_id))
            for usage, key in keys.items()
        ]
        new = [row for row in new if there.get(row.usage) != row]
        if not new:
            return True
        master = there.get(MASTER)
        if MASTER in keys and master is not None and keys[MASTER].public_key != master.public_key:
            # The former master key vouches for them, the new one does not.
            cross_signing.delete(txn, user_id, [each for each in USAGES if each not in keys])
        for row in new:
            cross_signing.put(txn, row)
        for hook in self._hooks.signing_keys_changed:
            hook(txn, user_id)
        return True

    def _stand(self, txn: Transaction, user_id: str) -> tuple[dict[str, CrossSigningRow], bool]:
        """The keys that there are, and whether they can be replaced without confirmation now."""
        until_ms = users.keys_replaceable_until(txn, user_id)
        is_allowed = self._clock.seconds() * 1000 < until_ms
        return cross_signing.of_user(txn, user_id), is_allowed


def is_reserved(txn: Transaction, user_id: str, device_id: str) -> bool:
    """A hook of `UserHooks.device_id_reserved`: devices are not called like cross-signing keys."""
    return cross_signing.is_public_key(txn, user_id, device_id)


def _stored(key: CrossSigningKey, user_id: str) -> str:
    return canonical.encode(key_objects.own_part(key.json, user_id)).decode()


def _replaces(keys: Mapping[str, CrossSigningKey], there: Mapping[str, CrossSigningRow]) -> bool:
    if MASTER not in there:
        return False
    return any(
        usage not in there or there[usage].public_key != key.public_key
        for usage, key in keys.items()
    )


def _check_master_signatures(
    user_id: str,
    keys: Mapping[str, CrossSigningKey],
    there: Mapping[str, CrossSigningRow],
) -> None:
    """Each other key must be signed by the master key that comes with it, or else is there."""
    if MASTER in keys:
        public_key = keys[MASTER].public_key
    elif MASTER in there:
        public_key = there[MASTER].public_key
    else:
        raise missing_param("master_key")
    for usage, key in keys.items():
        if usage != MASTER and not key_objects.is_signed(
            key.json, user_id, f"ed25519:{public_key}", public_key
        ):
            raise invalid_signature(f"The {usage} key is not signed by the master key.")
