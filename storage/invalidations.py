"""Durable cache invalidations, followed by every process. Table `invalidations`."""

from __future__ import annotations

from collections.abc import Collection

from storage.transaction import Transaction

_PRUNED = "invalidations_pruned"


def add(txn: Transaction, pos: int, keys: Collection[tuple[str, str]], now: int) -> None:
    """Record that (cache, key) pairs changed at `pos`; `now` in milliseconds."""
    txn.many(
        "INSERT INTO invalidations (pos, cache, cache_key, added_ts) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        [(pos, cache, key, now) for cache, key in keys],
    )


def since(txn: Transaction, pos: int) -> list[tuple[str, str]] | None:
    """The (cache, key) pairs after `pos`, or None when some of them were pruned already."""
    if txn.one("SELECT 1 FROM counters WHERE name = ? AND value > ?", (_PRUNED, pos)):
        return None
    return [
        (cache, key)
        for cache, key in txn.all(
            "SELECT cache, cache_key FROM invalidations WHERE pos > ? ORDER BY pos", (pos,)
        )
    ]


def prune(txn: Transaction, older_than: int) -> int:
    """Forget invalidations added before `older_than` (milliseconds); how many there were."""
    last = txn.value("SELECT max(pos) FROM invalidations WHERE added_ts < ?", (older_than,))
    if last is None:
        return 0
    txn.execute(
        "INSERT INTO counters (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
        " WHERE excluded.value > counters.value",
        (_PRUNED, last),
    )
    return txn.execute("DELETE FROM invalidations WHERE pos <= ?", (last,))
