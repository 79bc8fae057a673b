"""Devices publish their keys (client-server API, "Uploading keys").

- Identity keys are of the device that uploads them. Its signature on them must be right.
- One-time keys keep the order in which they were uploaded. Uploading one again changes nothing,
  also when it was claimed meanwhile: the answer to the first upload may have been lost.
- There is one fallback key for each algorithm. It is given out when no one-time key is left, any
  number of times.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from homeserver.core import canonical, key_objects
from homeserver.core.errors import MatrixError, bad_json, invalid_param, unknown_token
from homeserver.core.key_objects import BadKey
from homeserver.core.types import JsonObject
from homeserver.users.hooks import UserHooks
from storage import device_keys, one_time_keys
from storage.database import Database
from storage.one_time_keys import Counts, UploadedKey
from storage.transaction import Transaction

MAX_ONE_TIME_KEYS = 1_000
"""Unclaimed one-time keys of a device and algorithm."""
MAX_ALGORITHMS = 20
"""Algorithms of a device's one-time keys, and of its fallback keys."""

DeviceChanged: TypeAlias = Callable[[Transaction, str, str], None]


@dataclass(frozen=True, slots=True)
class Upload:
    """What a device uploads, checked; `device_keys` and keys are JSON texts."""

    device_keys: str | None
    one_time_keys: tuple[UploadedKey, ...]
    fallback_keys: tuple[UploadedKey, ...]


class KeyUploads:
    """Takes keys of this server's devices."""

    def __init__(self, db: Database, hooks: UserHooks) -> None:
        self._db = db
        self._hooks = hooks

    async def upload(
        self,
        user_id: str,
        device_id: str | None,
        keys: JsonObject | None,
        one_time: Mapping[str, Any],
        fallback: Mapping[str, Any],
    ) -> dict[str, int]:
        """Store keys of a device; the numbers of its unclaimed one-time keys by algorithm.

        Raises MatrixError: 400 M_INVALID_PARAM for keys of another user or device, for a new key
        under the ID of another one, and for too many keys; 400 M_BAD_JSON; 400
        M_INVALID_SIGNATURE; 413 M_TOO_LARGE.
        """
        if device_id is None:
            raise invalid_param("Only devices have keys, and this session has none.")
        wanted = self.checked(user_id, device_id, keys, one_time, fallback)
        if wanted == Upload(None, (), ()):
            return await self._db.query(one_time_keys.counts, user_id, device_id)
        return await self._db.write(self.upload_in, user_id, device_id, wanted)

    def checked(
        self,
        user_id: str,
        device_id: str,
        keys: JsonObject | None,
        one_time: Mapping[str, Any],
        fallback: Mapping[str, Any],
    ) -> Upload:
        """What `upload_in` takes. Raises MatrixError as `upload`."""
        return Upload(
            None if keys is None else _identity(keys, user_id, device_id),
            _parse(one_time),
            _parse_fallback(fallback),
        )

    def upload_in(
        self, txn: Transaction, user_id: str, device_id: str, upload: Upload
    ) -> dict[str, int]:
        """`upload` of what was checked, as part of a transaction; advances the clock."""
        # A device that is deleted at this moment leaves no keys behind.
        found = one_time_keys.lock_with_device(txn, user_id, device_id)
        if found is None:
            raise unknown_token()
        before = None
        if upload.device_keys is not None:
            before = device_keys.get(txn, user_id, device_id)
        changed = upload.device_keys is not None and upload.device_keys != before
        if (
            changed
            and before is not None
            and _identities(before) != _identities(upload.device_keys)
        ):
            # What was signed by or for the former keys is of no use with the new ones.
            one_time_keys.delete(txn, user_id, device_id)
            device_keys.delete(txn, user_id, device_id)
            found = one_time_keys.lock(txn, user_id, device_id)
        counts = self._add(txn, user_id, device_id, upload, found)
        if counts != found:
            one_time_keys.set_counts(txn, {(user_id, device_id): counts})
        if upload.device_keys is not None and changed:
            device_keys.put(txn, user_id, device_id, upload.device_keys)
            for hook in self._hooks.device_changed:
                hook(txn, user_id, device_id)
        return counts.counts

    def _add(
        self, txn: Transaction, user_id: str, device_id: str, upload: Upload, found: Counts
    ) -> Counts:
        known: Mapping[tuple[str, str], tuple[str, bool]] = {}
        if found.is_used:
            names = {key.key_id for key in upload.one_time_keys}
            known = one_time_keys.named(txn, user_id, device_id, names)
        new, are_new = [], True
        for key in upload.one_time_keys:
            there = known.get((key.algorithm, key.key_id))
            if there is None:
                new.append(key)
            elif not _same(there[0], key.key):
                if not there[1]:
                    name = f"{key.algorithm}:{key.key_id}"
                    raise invalid_param(f"There is another one-time key {name}.")
                new.append(key)
                are_new = False
        counts = found
        if new:
            counts = one_time_keys.add(txn, user_id, device_id, found, new, are_new=are_new)
        _check_bounds(counts)
        if upload.fallback_keys:
            counts = one_time_keys.put_fallback(
                txn, user_id, device_id, counts, upload.fallback_keys
            )
            if len(one_time_keys.fallback_algorithms(txn, user_id, device_id)) > MAX_ALGORITHMS:
                raise invalid_param("There are fallback keys of too many algorithms.")
        return counts


def device_deleted(txn: Transaction, user_id: str, device_id: str) -> None:
    """A hook of `UserHooks.device_deleted`: the keys go with the device."""
    one_time_keys.delete(txn, user_id, device_id)
    device_keys.delete(txn, user_id, device_id)


def _identity(keys: JsonObject, user_id: str, device_id: str) -> str:
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        raise invalid_param("The device keys are not those of this user and device.")
    try:
        key_objects.check_device_keys(keys, user_id, device_id)
    except BadKey as error:
        raise bad_json(str(error)) from None
    key_objects.check_self_signature(keys)
    return canonical.encode(key_objects.own_part(keys, user_id)).decode()


def _identities(keys: str | None) -> Any:
    return json.loads(keys or "{}").get("keys")


def _parse(keys: Mapping[str, Any]) -> tuple[UploadedKey, ...]:
    if len(keys) > MAX_ONE_TIME_KEYS:
        raise _too_many()
    names = [key_objects.split_key_id(name) for name in keys]
    encoded = key_objects.check_one_time_keys(list(keys.values()))
    return tuple(UploadedKey(*name, key.decode()) for name, key in zip(names, encoded, strict=True))


def _parse_fallback(keys: Mapping[str, Any]) -> tuple[UploadedKey, ...]:
    found = _parse(keys)
    if len({key.algorithm for key in found}) != len(found):
        raise invalid_param("There is one fallback key for each algorithm.")
    return found


def _same(one: str, other: str) -> bool:
    """Whether two one-time keys are the same key; each upload may have signed it anew."""
    if one == other:
        return True
    first, second = json.loads(one), json.loads(other)
    if not isinstance(first, dict) or not isinstance(second, dict):
        return False
    return key_objects.signed_part(first) == key_objects.signed_part(second)


def _check_bounds(counts: Counts) -> None:
    most = max(counts.counts.values(), default=0)
    if most > MAX_ONE_TIME_KEYS or len(counts.counts) > MAX_ALGORITHMS:
        raise _too_many()


def _too_many() -> MatrixError:
    return invalid_param(
        f"A device has at most {MAX_ONE_TIME_KEYS} one-time keys of an algorithm,"
        f" of at most {MAX_ALGORITHMS} algorithms."
    )
