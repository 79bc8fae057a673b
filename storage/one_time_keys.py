"""One-time and fallback keys. Tables `one_time_keys`, `fallback_keys`, `one_time_key_counts`.

Whoever changes the keys of a device locks its row of `one_time_key_counts` first, in the order of
users and devices: uploads and claims of one device follow each other, in any process.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import orjson

from storage import devices
from storage.point_query import point_query
from storage.transaction import Row, Transaction

KEPT_CLAIMED = 500
"""Claimed keys of a device and algorithm that are remembered."""
_AT_ONCE = 200
_DEVICE = ("text", "text")
_WANTED = ("text", "text", "text")

Wanted: TypeAlias = tuple[str, str, str]
"""User ID, device ID, algorithm."""


class UploadedKey(NamedTuple):
    """A key with its algorithm and ID; `key` is JSON."""

    algorithm: str
    key_id: str
    key: str


class ClaimedKey(NamedTuple):
    key_id: str
    key: str


class Counts(NamedTuple):
    """What a device has: unclaimed keys and fallback keys that were not given out."""

    next_seq: int
    counts: dict[str, int]
    unused_fallback: list[str]

    @property
    def is_used(self) -> bool:
        """Whether the device has ever had a one-time key."""
        return self.next_seq > 1


def lock(txn: Transaction, user_id: str, device_id: str) -> Counts:
    """Lock the keys of a device until the transaction ends; makes the row if there is none."""
    sql = (
        "SELECT next_seq, counts, unused_fallback FROM one_time_key_counts"
        f" WHERE user_id = ? AND device_id = ?{txn.dialect.for_update}"
    )
    row = txn.one(sql, (user_id, device_id))
    if row is None:
        if _make(txn, user_id, device_id):
            return Counts(1, {}, [])
        row = txn.one(sql, (user_id, device_id))
    assert row is not None
    return Counts(row[0], orjson.loads(row[1]), orjson.loads(row[2]))


def _make(txn: Transaction, user_id: str, device_id: str) -> bool:
    """Make the row of a device, which is locked then; False if there is one."""
    made = txn.execute(
        "INSERT INTO one_time_key_counts (user_id, device_id, next_seq, counts, unused_fallback)"
        " VALUES (?, ?, 1, '{}', '[]') ON CONFLICT (user_id, device_id) DO NOTHING",
        (user_id, device_id),
    )
    return made > 0


def lock_with_device(txn: Transaction, user_id: str, device_id: str) -> Counts | None:
    """Lock a device, then its keys, as `devices.lock_device` and `lock` do; None: no device."""
    row = txn.one(
        "SELECT c.next_seq, c.counts, c.unused_fallback FROM devices d"
        " JOIN one_time_key_counts c ON c.user_id = d.user_id AND c.device_id = d.device_id"
        f" WHERE d.user_id = ? AND d.device_id = ?{txn.dialect.for_update}",
        (user_id, device_id),
    )
    if row is not None:
        return Counts(row[0], orjson.loads(row[1]), orjson.loads(row[2]))
    if not devices.lock_device(txn, user_id, device_id):
        return None
    if _make(txn, user_id, device_id):
        return Counts(1, {}, [])
    return lock(txn, user_id, device_id)


def _counts(rows: list[Row]) -> dict[str, int]:
    return dict(orjson.loads(rows[0][0])) if rows else {}


@point_query("SELECT counts FROM one_time_key_counts WHERE user_id = ? AND device_id = ?", _counts)
def counts(user_id: str, device_id: str) -> Sequence[Any]:
    """How many unclaimed keys a device has of each algorithm."""
    return (user_id, device_id)


def named(
    txn: Transaction, user_id: str, device_id: str, key_ids: Collection[str]
) -> dict[tuple[str, str], tuple[str, bool]]:
    """Keys of a device with one of these IDs: by algorithm and ID, the JSON and if claimed."""
    if not key_ids:
        return {}
    where, args = txn.any_of("key_id", key_ids)
    rows = txn.all(
        "SELECT algorithm, key_id, key, claimed FROM one_time_keys"
        f" WHERE user_id = ? AND device_id = ? AND {where}",
        [user_id, device_id, *args],
    )
    return {(row[0], row[1]): (row[2], bool(row[3])) for row in rows}


def add(
    txn: Transaction,
    user_id: str,
    device_id: str,
    locked: Counts,
    keys: Iterable[UploadedKey],
    *,
    are_new: bool,
) -> Counts:
    """Add keys in this order to a locked device; the keys are not there yet (`are_new`), or
    claimed."""
    seq, found = locked.next_seq, dict(locked.counts)
    rows = []
    for key in keys:
        rows.append((user_id, device_id, key.algorithm, key.key_id, seq, key.key, False))
        found[key.algorithm] = found.get(key.algorithm, 0) + 1
        seq += 1
    sql = (
        "INSERT INTO one_time_keys (user_id, device_id, algorithm, key_id, seq, key, claimed)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    if not are_new:
        sql += (
            " ON CONFLICT (user_id, device_id, algorithm, key_id)"
            " DO UPDATE SET seq = excluded.seq, key = excluded.key, claimed = excluded.claimed"
        )
    txn.many(sql, rows)
    # No more have been claimed than were uploaded before.
    if locked.next_seq > KEPT_CLAIMED:
        for algorithm in {row[2] for row in rows}:
            _drop_claimed(txn, user_id, device_id, algorithm)
    return locked._replace(next_seq=seq, counts=found)


def _drop_claimed(txn: Transaction, user_id: str, device_id: str, algorithm: str) -> None:
    last = txn.value(
        "SELECT seq FROM one_time_keys WHERE user_id = ? AND device_id = ? AND algorithm = ?"
        " AND claimed ORDER BY seq DESC LIMIT 1 OFFSET ?",
        (user_id, device_id, algorithm, KEPT_CLAIMED),
    )
    if last is not None:
        txn.execute(
            "DELETE FROM one_time_keys WHERE user_id = ? AND device_id = ? AND algorithm = ?"
            " AND claimed AND seq <= ?",
            (user_id, device_id, algorithm, last),
        )


def put_fallback(
    txn: Transaction, user_id: str, device_id: str, locked: Counts, keys: Collection[UploadedKey]
) -> Counts:
    """Set fallback keys of a locked device; a key that is there already stays as it is."""
    unused = set(locked.unused_fallback)
    for key in keys:
        changed = txn.execute(
            "INSERT INTO fallback_keys (user_id, device_id, algorithm, key_id, key, used)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, device_id, algorithm)"
            " DO UPDATE SET key_id = excluded.key_id, key = excluded.key, used = excluded.used"
            " WHERE fallback_keys.key_id <> excluded.key_id OR fallback_keys.key <> excluded.key",
            (user_id, device_id, key.algorithm, key.key_id, key.key, False),
        )
        if changed:
            unused.add(key.algorithm)
    return locked._replace(unused_fallback=sorted(unused))


def fallback_algorithms(txn: Transaction, user_id: str, device_id: str) -> set[str]:
    """The algorithms of which a device has a fallback key."""
    rows = txn.all(
        "SELECT algorithm FROM fallback_keys WHERE user_id = ? AND device_id = ?",
        (user_id, device_id),
    )
    return {row[0] for row in rows}


def set_counts(txn: Transaction, changed: Mapping[tuple[str, str], Counts]) -> None:
    """Write down what locked devices have."""
    rows = [
        (each.next_seq, _text(each.counts), _text(each.unused_fallback), *device)
        for device, each in changed.items()
    ]
    if len(rows) == 1:
        txn.execute(
            "UPDATE one_time_key_counts SET next_seq = ?, counts = ?, unused_fallback = ?"
            " WHERE user_id = ? AND device_id = ?",
            rows[0],
        )
    else:
        new, args = txn.dialect.rows_of(("bigint", *["text"] * 4), rows)
        txn.execute(
            "INSERT INTO one_time_key_counts"
            f" (next_seq, counts, unused_fallback, user_id, device_id) {new}"
            " ON CONFLICT (user_id, device_id)"
            " DO UPDATE SET next_seq = excluded.next_seq, counts = excluded.counts,"
            " unused_fallback = excluded.unused_fallback",
            args,
        )
    txn.notify(*{f"user:{user_id}" for user_id, _ in changed})


def _text(value: object) -> str:
    return orjson.dumps(value).decode()


def claim(txn: Transaction, wanted: Collection[Wanted]) -> dict[Wanted, ClaimedKey]:
    """Give out one key for each: the oldest one-time key, else the fallback key."""
    found: dict[Wanted, ClaimedKey] = {}
    ordered = sorted(set(wanted))
    for start in range(0, len(ordered), _AT_ONCE):
        # Chunks in the order of the keys, so that two claims never wait for each other.
        found |= _claim(txn, ordered[start : start + _AT_ONCE])
    return found


def _claim(txn: Transaction, wanted: list[Wanted]) -> dict[Wanted, ClaimedKey]:
    pairs = sorted({(user_id, device_id) for user_id, device_id, _ in wanted})
    listed, args = txn.dialect.rows_of(_DEVICE, pairs)
    locked = {
        (row[0], row[1]): Counts(row[2], orjson.loads(row[3]), orjson.loads(row[4]))
        for row in txn.all(
            "SELECT user_id, device_id, next_seq, counts, unused_fallback FROM one_time_key_counts"
            f" WHERE (user_id, device_id) IN ({listed})"
            f" ORDER BY user_id, device_id{txn.dialect.for_update}",
            args,
        )
    }
    here = [each for each in wanted if each[:2] in locked]
    if not here:
        return {}
    changed: dict[tuple[str, str], Counts] = {}
    one_time = [each for each in here if locked[each[:2]].counts.get(each[2], 0)]
    found = _take(txn, one_time)
    for user_id, device_id, algorithm in found:
        before = changed.get((user_id, device_id), locked[user_id, device_id])
        left = {**before.counts, algorithm: before.counts[algorithm] - 1}
        changed[user_id, device_id] = before._replace(counts=left)
    fallback = _fall_back(txn, [each for each in here if each not in found])
    for user_id, device_id, algorithm in fallback:
        before = changed.get((user_id, device_id), locked[user_id, device_id])
        if algorithm in before.unused_fallback:
            unused = [each for each in before.unused_fallback if each != algorithm]
            changed[user_id, device_id] = before._replace(unused_fallback=unused)
    if changed:
        set_counts(txn, changed)
    return found | fallback


def _take(txn: Transaction, wanted: list[Wanted]) -> dict[Wanted, ClaimedKey]:
    if not wanted:
        return {}
    listed, args = txn.dialect.rows_of(_WANTED, wanted)
    # The device is locked, so that its keys stay where they are.
    firsts = txn.dialect.row_is_one_of(
        f"SELECT (SELECT k.{txn.dialect.row_id} FROM one_time_keys k WHERE k.user_id = w.user_id"
        " AND k.device_id = w.device_id AND k.algorithm = w.algorithm AND NOT k.claimed"
        " ORDER BY k.seq LIMIT 1) FROM wanted w"
    )
    rows = txn.all(
        f"WITH wanted (user_id, device_id, algorithm) AS ({listed})"
        f" UPDATE one_time_keys SET claimed = ? WHERE {firsts} AND NOT claimed"
        " RETURNING user_id, device_id, algorithm, key_id, key",
        [*args, True],
    )
    return {(row[0], row[1], row[2]): ClaimedKey(row[3], row[4]) for row in rows}


def _fall_back(txn: Transaction, wanted: list[Wanted]) -> dict[Wanted, ClaimedKey]:
    if not wanted:
        return {}
    listed, args = txn.dialect.rows_of(_WANTED, wanted)
    rows = txn.all(
        "UPDATE fallback_keys SET used = ?"
        f" WHERE (user_id, device_id, algorithm) IN ({listed})"
        " RETURNING user_id, device_id, algorithm, key_id, key",
        [True, *args],
    )
    return {(row[0], row[1], row[2]): ClaimedKey(row[3], row[4]) for row in rows}


def delete(txn: Transaction, user_id: str, device_id: str) -> None:
    """Delete all keys of a device."""
    for table in ("one_time_keys", "fallback_keys", "one_time_key_counts"):
        txn.execute(
            f"DELETE FROM {table} WHERE user_id = ? AND device_id = ?", (user_id, device_id)
        )
    txn.notify(f"user:{user_id}")
