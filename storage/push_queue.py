"""What waits to be told, and which process tells it. Tables `push_queue`, `push_work`,
`push_gateways`.

A pusher with anything to do has a row of work, which one process at a time claims: so the order of
what a device is told is kept, and a process that dies leaves at most one push of each pusher in
doubt. Gateways that fail are left alone for longer and longer, together with all that goes to
them. Times are milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from storage.transaction import Transaction

CHANNEL = "pushes"
CLAIM_MS = 90_000
ALL = 2**62
"""Behind every position."""
MAX_WAITING = 500
"""Events that wait for one pusher whose gateway does not answer; of more, the newest."""


class Waiting(NamedTuple):
    """An event that a pusher is to be told of."""

    pusher_nid: int
    pos: int
    room_nid: int
    event_nid: int
    tweaks: str
    queued_ts: int


class Work(NamedTuple):
    """A pusher that has been claimed.

    `attempts` counts those that failed in a row; `gateway_attempts` those of its gateway, None
    while it answers.
    """

    pusher_nid: int
    user_id: str
    gateway: str
    serial: int
    badge: bool
    attempts: int
    gateway_attempts: int | None


_WAITING = ", ".join(Waiting._fields)


def enqueue(txn: Transaction, rows: Iterable[Waiting]) -> None:
    """Add events to be told; call `add_work` for their pushers too."""
    txn.many(
        f"INSERT INTO push_queue ({_WAITING}) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        rows,
    )


def add_work(txn: Transaction, due: Mapping[int, tuple[str, int]], *, badge: bool = False) -> None:
    """Have pushers, by number, looked after from a time on: earlier if they are due earlier.

    `due` has their gateways and times; `badge`: the count that their devices show may be wrong.
    """
    txn.many(
        "INSERT INTO push_work (pusher_nid, gateway, serial, due_ts, badge, attempts, owner,"
        " claimed_until) VALUES (?, ?, 1, ?, ?, 0, NULL, 0)"
        " ON CONFLICT (pusher_nid) DO UPDATE SET serial = push_work.serial + 1,"
        " gateway = excluded.gateway, badge = (push_work.badge OR excluded.badge),"
        " due_ts = CASE WHEN push_work.attempts > 0 OR push_work.due_ts < excluded.due_ts"
        " THEN push_work.due_ts ELSE excluded.due_ts END",
        [(nid, gateway, ts, badge) for nid, (gateway, ts) in sorted(due.items())],
    )
    txn.notify(CHANNEL)


def claim(
    txn: Transaction,
    owner: str,
    now: int,
    limit: int,
    each: int,
    busy: Mapping[str, int],
    each_user: int = ALL,
    busy_users: Mapping[str, int] = MappingProxyType({}),
) -> list[Work]:
    """Claim pushers that are due: at most `limit`, and of each gateway so many that with those
    that are `busy` already there are at most `each`; of each user likewise. A gateway that failed
    gets one: of a pusher that it has served before, if there is one."""
    not_full, gateways = txn.any_of("w.gateway", [g for g, n in busy.items() if n >= each])
    not_served, users = txn.any_of(
        "p.user_id", [user for user, count in busy_users.items() if count >= each_user]
    )
    rows = txn.all(
        "WITH due AS MATERIALIZED (SELECT w.pusher_nid, w.gateway, w.due_ts, g.attempts AS failed,"
        " p.user_id, p.badge FROM push_work w LEFT JOIN push_gateways g ON g.gateway = w.gateway"
        " LEFT JOIN pushers p ON p.pusher_nid = w.pusher_nid"
        " WHERE w.due_ts <= ? AND w.claimed_until <= ?"
        f" AND (g.retry_ts IS NULL OR g.retry_ts <= ?) AND NOT ({not_full})"
        f" AND (p.user_id IS NULL OR NOT ({not_served}))"
        " ORDER BY w.due_ts LIMIT ?)"
        " SELECT pusher_nid, user_id, gateway, failed FROM due"
        # Anybody can name keys that a gateway fails at: it is not to be judged by these.
        " ORDER BY CASE WHEN failed > 0 AND badge IS NULL THEN 1 ELSE 0 END, due_ts",
        (now, now, now, *gateways, *users, limit * 8),
    )
    of_gateway, of_user = Counter(busy), Counter(busy_users)
    wanted: dict[int, tuple[str, int | None]] = {}
    for pusher_nid, user_id, gateway, failed in rows:
        most = min(each, 1) if failed else each
        if of_gateway[gateway] >= most or of_user[user_id or ""] >= each_user:
            continue
        if len(wanted) < limit:
            of_gateway[gateway] += 1
            of_user[user_id or ""] += 1
            wanted[pusher_nid] = user_id or "", failed
    if not wanted:
        return []
    where, args = txn.any_of("pusher_nid", wanted)
    claimed = txn.all(
        # Materialised, or PostgreSQL might run the sub-select more than once and claim more.
        "WITH free AS MATERIALIZED (SELECT pusher_nid FROM push_work"
        f" WHERE {where} AND claimed_until <= ? AND due_ts <= ?{txn.dialect.skip_locked})"
        " UPDATE push_work SET owner = ?, claimed_until = ?"
        " WHERE pusher_nid IN (SELECT pusher_nid FROM free)"
        " RETURNING pusher_nid, gateway, serial, badge, attempts",
        (*args, now, now, owner, now + CLAIM_MS),
    )
    found = [
        Work(nid, wanted[nid][0], gateway, serial, bool(badge), attempts, wanted[nid][1])
        for nid, gateway, serial, badge, attempts in claimed
    ]
    return sorted(found)


def next_due(txn: Transaction, now: int) -> int | None:
    """When a pusher is due that nobody has; None: none waits."""
    found: int | None = txn.value(
        "SELECT due_ts FROM push_work WHERE claimed_until <= ? ORDER BY due_ts LIMIT 1", (now,)
    )
    return found


def renew(txn: Transaction, pusher_nids: Collection[int], owner: str, now: int) -> None:
    """Keep claimed pushers from being claimed by others."""
    where, args = txn.any_of("pusher_nid", pusher_nids)
    txn.execute(
        f"UPDATE push_work SET claimed_until = ? WHERE {where} AND owner = ?",
        (now + CLAIM_MS, *args, owner),
    )


def holds(txn: Transaction, pusher_nid: int, owner: str) -> bool:
    """Whether this process still has the pusher; no other can take it until the transaction
    ends."""
    sql = f"SELECT 1 FROM push_work WHERE pusher_nid = ? AND owner = ?{txn.dialect.for_update}"
    return txn.one(sql, (pusher_nid, owner)) is not None


def waiting(txn: Transaction, pusher_nid: int, limit: int) -> list[Waiting]:
    """What a pusher is to be told, the oldest first."""
    rows = txn.all(
        f"SELECT {_WAITING} FROM push_queue WHERE pusher_nid = ? ORDER BY pos LIMIT ?",
        (pusher_nid, limit),
    )
    return [Waiting(*raw) for raw in rows]


def count_waiting(txn: Transaction, pusher_nid: int) -> int:
    """How many events wait for a pusher."""
    sql = "SELECT COUNT(*) FROM push_queue WHERE pusher_nid = ?"
    return int(txn.value(sql, (pusher_nid,)))


def done(txn: Transaction, pusher_nid: int, upto: int) -> int:
    """A pusher has been told everything up to a position; how much that was."""
    sql = "DELETE FROM push_queue WHERE pusher_nid = ? AND pos <= ?"
    return txn.execute(sql, (pusher_nid, upto))


def shorten(txn: Transaction, pusher_nid: int) -> list[Waiting]:
    """Take from a long queue what is oldest."""
    oldest = txn.value(
        "SELECT pos FROM push_queue WHERE pusher_nid = ? ORDER BY pos DESC LIMIT 1 OFFSET ?",
        (pusher_nid, MAX_WAITING),
    )
    if oldest is None:
        return []
    rows = txn.all(
        f"DELETE FROM push_queue WHERE pusher_nid = ? AND pos <= ? RETURNING {_WAITING}",
        (pusher_nid, oldest),
    )
    return [Waiting(*raw) for raw in rows]


def take_old(txn: Transaction, before: int, limit: int) -> list[Waiting]:
    """Take out what has waited since before a time, but for e-mail, which waits long."""
    rows = txn.all(
        "DELETE FROM push_queue WHERE (pusher_nid, pos) IN (SELECT q.pusher_nid, q.pos"
        " FROM push_queue q JOIN push_work w ON w.pusher_nid = q.pusher_nid"
        " WHERE q.queued_ts < ? AND w.gateway <> 'mail' LIMIT ?)"
        f" RETURNING {_WAITING}",
        (before, limit),
    )
    return [Waiting(*raw) for raw in rows]


def finish(txn: Transaction, work: Work, owner: str, now: int, due: int | None) -> None:
    """Give a pusher back. It is due again at `due`, or has nothing to do (None); what came
    meanwhile makes it due at once."""
    if due is None:
        gone = txn.execute(
            "DELETE FROM push_work WHERE pusher_nid = ? AND owner = ? AND serial = ?",
            (work.pusher_nid, owner, work.serial),
        )
        if gone:
            return
    txn.execute(
        "UPDATE push_work SET owner = NULL, claimed_until = 0, attempts = 0,"
        " due_ts = CASE WHEN serial = ? THEN ? ELSE ? END,"
        " badge = CASE WHEN serial = ? THEN FALSE ELSE badge END"
        " WHERE pusher_nid = ? AND owner = ?",
        (work.serial, now if due is None else due, now, work.serial, work.pusher_nid, owner),
    )
    txn.notify(CHANNEL)


def postpone(txn: Transaction, work: Work, owner: str, due: int) -> None:
    """An attempt failed: give a pusher back until another time."""
    txn.execute(
        "UPDATE push_work SET owner = NULL, claimed_until = 0, attempts = attempts + 1,"
        " due_ts = ? WHERE pusher_nid = ? AND owner = ?",
        (due, work.pusher_nid, owner),
    )


def give_back(txn: Transaction, pusher_nids: Collection[int], owner: str) -> None:
    """Return claimed pushers as if nothing had been tried."""
    where, args = txn.any_of("pusher_nid", pusher_nids)
    txn.execute(
        f"UPDATE push_work SET owner = NULL, claimed_until = 0 WHERE {where} AND owner = ?",
        (*args, owner),
    )


def release_all(txn: Transaction, owner: str) -> None:
    """A process is gone: what it had claimed is due again."""
    txn.execute("UPDATE push_work SET owner = NULL, claimed_until = 0 WHERE owner = ?", (owner,))


def gateway_failed(txn: Transaction, gateway: str, now: int, first: int, longest: int) -> int:
    """A gateway did not answer as it should: when it is asked again.

    The pause begins with `first` and doubles up to `longest`. Those who fail at the same time count
    once: what they tried was begun before the gateway was known to fail.
    """
    row = txn.one(
        "INSERT INTO push_gateways (gateway, attempts, failing_since, retry_ts)"
        " VALUES (?, 1, ?, ?) ON CONFLICT (gateway) DO UPDATE SET"
        " attempts = push_gateways.attempts"
        " + CASE WHEN push_gateways.retry_ts <= ? THEN 1 ELSE 0 END"
        " RETURNING attempts, retry_ts",
        (gateway, now, now + first, now),
    )
    assert row is not None, "a row was inserted or updated"
    attempts, retry_ts = int(row[0]), int(row[1])
    if retry_ts <= now:
        retry_ts = now + min(longest, first * 2 ** min(attempts - 1, 40))
        txn.execute("UPDATE push_gateways SET retry_ts = ? WHERE gateway = ?", (retry_ts, gateway))
    _wait(txn, gateway, retry_ts)
    return retry_ts


def _wait(txn: Transaction, gateway: str, until: int) -> None:
    """What goes to a gateway is not even looked at for some time."""
    txn.execute(
        "UPDATE push_work SET due_ts = ? WHERE gateway = ? AND owner IS NULL AND due_ts < ?",
        (until, gateway, until),
    )


def gateway_paused(txn: Transaction, gateway: str, now: int, until: int) -> None:
    """A gateway wants to be left alone for some time."""
    txn.execute(
        "INSERT INTO push_gateways (gateway, attempts, failing_since, retry_ts)"
        " VALUES (?, 0, ?, ?) ON CONFLICT (gateway) DO UPDATE SET retry_ts = excluded.retry_ts",
        (gateway, now, until),
    )
    _wait(txn, gateway, until)


def gateway_works(txn: Transaction, gateway: str) -> None:
    """A gateway answered."""
    txn.execute("DELETE FROM push_gateways WHERE gateway = ?", (gateway,))


class FailingGateway(NamedTuple):
    """A gateway that is left alone."""

    gateway: str
    attempts: int
    failing_since: int
    retry_ts: int


def failing(txn: Transaction, gateways: Collection[str] | None = None) -> list[FailingGateway]:
    """The gateways that fail, or those of them that are named."""
    where, args = ("1 = 1", []) if gateways is None else txn.any_of("gateway", gateways)
    rows = txn.all(
        "SELECT gateway, attempts, failing_since, retry_ts FROM push_gateways"
        f" WHERE {where} ORDER BY gateway",
        args,
    )
    return [FailingGateway(*raw) for raw in rows]


def totals(txn: Transaction) -> tuple[int, int]:
    """How many pushes wait, and how many gateways fail."""
    row = txn.one("SELECT (SELECT COUNT(*) FROM push_queue), (SELECT COUNT(*) FROM push_gateways)")
    assert row is not None, "a SELECT without FROM has one row"
    return int(row[0]), int(row[1])
