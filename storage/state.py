"""State trees, interned state keys, and the projection of each room's current state."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from sys import intern
from threading import Lock
from typing import TypeVar

from homeserver.cache import Cache
from homeserver.core.types import StateKey
from storage.auth_index import AuthIndex
from storage.dialect import bytes_text
from storage.errors import IntegrityViolation
from storage.events import COLUMNS, EventRow
from storage.transaction import Transaction

_PART = 300
_MANY = 2000
"""So many new state keys at once are not remembered: they would push out what is in use."""

_SAVE = (
    "INSERT INTO state_nodes (room_nid, hash, body, saved) {}"
    " ON CONFLICT (room_nid, hash) DO UPDATE SET saved = excluded.saved"
)
_NEW_NODES = (
    "SELECT ?::bigint, n.hash, n.body, c.pos"
    " FROM unnest(?::bytea[], ?::bytea[]) AS n (hash, body), clock c"
)
_BY_KEY = {
    "sqlite": "SELECT type, state_key, state_key_nid FROM state_keys"
    " WHERE (type, state_key) IN ({})",
    # By the index in turn (the limit keeps it so): of many keys PostgreSQL would read the table.
    "postgres": "SELECT k.type, k.state_key, s.state_key_nid FROM ({}) AS k (type, state_key)"
    " CROSS JOIN LATERAL (SELECT state_key_nid FROM state_keys s"
    " WHERE s.type = k.type AND s.state_key = k.state_key LIMIT 1) s",
}

T = TypeVar("T")
Load = Callable[[Sequence[bytes]], Mapping[bytes, bytes]]


class NumberBlocks:
    """Hands out numbers from blocks reserved in `counters`; safe to use from many threads.

    A number is never given twice; numbers of a block that a stopped process did not use are lost.
    """

    def __init__(self, name: str, block: int = 1000) -> None:
        self._name = name
        self._block = block
        self._free: range = range(0)
        self._lock = Lock()

    def take(self, txn: Transaction, count: int) -> list[int]:
        """`count` new numbers."""
        with self._lock:
            if len(self._free) >= count:
                taken, self._free = self._free[:count], self._free[count:]
                return list(taken)
        size = max(self._block, count)
        end: int = txn.value(
            "INSERT INTO counters (name, value) VALUES (?, ?) ON CONFLICT (name)"
            " DO UPDATE SET value = counters.value + ? RETURNING value",
            (self._name, size, size),
        )
        fresh = range(end - size + 1, end + 1)
        # Only after the commit: a transaction that is rolled back gives its block back.
        txn.after_commit(lambda: self._adopt(fresh[count:]))
        return list(fresh[:count])

    def take_free(self, count: int) -> list[int] | None:
        """`count` new numbers of the block that is reserved already; None: it has fewer left."""
        with self._lock:
            if len(self._free) < count:
                return None
            taken, self._free = self._free[:count], self._free[count:]
            return list(taken)

    def _adopt(self, rest: range) -> None:
        with self._lock:
            if len(rest) > len(self._free):
                self._free = rest


class StateStore:
    """Reads and writes state trees through caches of what never changes.

    One for each homeserver; used in database threads.
    """

    def __init__(self) -> None:
        self.keeps_redacted = False
        """Whether what events said is kept for a time when they are redacted."""
        self.begins: Callable[[Transaction, int], int | None] | None = None
        """The time before which messages of a room (by number) are too old to be shown, in
        milliseconds; None: nothing is ever too old (`homeserver.rooms.retention`)."""
        self._nodes: Cache[bytes, bytes] = Cache("state_nodes", _node_size)
        self._nids: Cache[StateKey, int] = Cache("state_key_numbers", _nid_size, share=0.1)
        self._keys: Cache[int, StateKey] = Cache("state_keys", _key_size, share=0.1)
        self._numbers = NumberBlocks("state_key")
        self.auth = AuthIndex()
        self.caches = (self._nodes, self._nids, self._keys, *self.auth.caches)

    def loader(self, txn: Transaction, room_nid: int) -> Load:
        """The function by which `homeserver.core.state_tree` loads nodes of this room."""

        def load(hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
            found = self._nodes.get_many(hashes)
            if len(found) < len(hashes):
                missing = [name for name in hashes if name not in found]
                where, args = txn.any_of("hash", missing)
                rows = txn.all(
                    f"SELECT hash, body FROM state_nodes WHERE room_nid = ? AND {where}",
                    [room_nid, *args],
                )
                for node_hash, body in rows:
                    found[bytes(node_hash)] = self._nodes[bytes(node_hash)] = bytes(body)
            return found

        return load

    def save(self, txn: Transaction, room_nid: int, nodes: Mapping[bytes, bytes]) -> None:
        """Store new nodes of a room's trees."""
        if not nodes:
            return
        # Nodes that are there already are noted as new, too: see `storage.state_nodes`.
        if txn.dialect.name == "postgres":
            arrays = bytes_text(nodes.keys()), bytes_text(nodes.values())
            txn.execute(_SAVE.format(_NEW_NODES), (room_nid, *arrays))
        else:
            now = txn.value("SELECT pos FROM clock")
            rows = [(room_nid, node_hash, body, now) for node_hash, body in nodes.items()]
            txn.many(_SAVE.format("VALUES (?, ?, ?, ?)"), rows)
        txn.after_commit(lambda: self._nodes.update(nodes))

    def intern(self, txn: Transaction, keys: Collection[StateKey]) -> dict[StateKey, int]:
        """The numbers of state keys; new ones are given a number."""
        found, missing = self._known(keys)
        if missing:
            # Not cached: an earlier call of this transaction may have made them, and it may be
            # rolled back.
            found |= self._fetch(txn, missing, cache=False)
            new = [key for key in missing if key not in found]
            if new:
                made = self._make(txn, new)
                found |= made
                txn.uncommitted.update(made.values())
            if len(missing) <= _MANY:
                txn.after_commit(lambda: self._remember(found))
        return found

    def _make(self, txn: Transaction, keys: Sequence[StateKey]) -> dict[StateKey, int]:
        """Give numbers to keys that had none a moment ago."""
        ordered = sorted(keys, key=itemgetter(1))
        ordered.sort(key=itemgetter(0))
        made = dict(zip(ordered, self._numbers.take(txn, len(ordered)), strict=True))
        all_rows = [(number, *key) for key, number in made.items()]
        if len(all_rows) > _PART and _copied(txn, all_rows):
            return made
        inserted = 0
        for rows in _parts(txn, all_rows):
            query, args = txn.dialect.rows_of(("bigint", "text", "text"), rows)
            inserted += txn.execute(
                f"INSERT INTO state_keys (state_key_nid, type, state_key) {query}"
                " ON CONFLICT DO NOTHING",
                args,
            )
        # Another process may have been first: what the table says holds.
        return made if inserted == len(made) else self._fetch(txn, keys, cache=False)

    def lookup(self, txn: Transaction, keys: Collection[StateKey]) -> dict[StateKey, int]:
        """The numbers of those state keys that have one."""
        found, missing = self._known(keys)
        return found | self._fetch(txn, missing) if missing else found

    def keys(self, txn: Transaction, nids: Collection[int]) -> dict[int, StateKey]:
        """The state keys of these numbers."""
        found = self._keys.get_many(nids)
        missing = [number for number in nids if number not in found]
        for start in range(0, len(missing), 1000):
            where, args = txn.any_of("state_key_nid", missing[start : start + 1000])
            rows = txn.all(
                f"SELECT state_key_nid, type, state_key FROM state_keys WHERE {where}", args
            )
            for number, event_type, state_key in rows:
                found[number] = (intern(event_type), state_key)
                if number not in txn.uncommitted:
                    self._keys[number] = found[number]
        return found

    def _known(self, keys: Collection[StateKey]) -> tuple[dict[StateKey, int], list[StateKey]]:
        found = self._nids.get_many(keys)
        return found, [key for key in keys if key not in found]

    def _fetch(
        self, txn: Transaction, keys: Sequence[StateKey], *, cache: bool = True
    ) -> dict[StateKey, int]:
        found: dict[StateKey, int] = {}
        made = txn.uncommitted
        for part in _parts(txn, keys):
            query, args = txn.dialect.rows_of(("text", "text"), part)
            rows = txn.all(_BY_KEY[txn.dialect.name].format(query), args)
            found |= {(row[0], row[1]): row[2] for row in rows}
        if cache:
            self._remember({k: number for k, number in found.items() if number not in made})
        return found

    def _remember(self, nids: Mapping[StateKey, int]) -> None:
        self._nids.update(nids)


def _parts(txn: Transaction, rows: Sequence[T]) -> Iterable[Sequence[T]]:
    """What one statement takes of many rows: all, where they are a few arrays."""
    if txn.dialect.name == "postgres":
        return [rows]
    return [rows[start : start + _PART] for start in range(0, len(rows), _PART)]


def _copied(txn: Transaction, rows: list[tuple[int, str, str]]) -> bool:
    """Insert many keys without ON CONFLICT, which on PostgreSQL is half the work; False: another
    process has made one of them meanwhile, and nothing was inserted."""
    if txn.dialect.name != "postgres":
        return False
    txn.execute("SAVEPOINT new_state_keys")
    try:
        txn.many("INSERT INTO state_keys (state_key_nid, type, state_key) VALUES (?, ?, ?)", rows)
    except IntegrityViolation:
        txn.execute("ROLLBACK TO SAVEPOINT new_state_keys")
        return False
    txn.execute("RELEASE SAVEPOINT new_state_keys")
    return True


def _node_size(node_hash: bytes, body: bytes) -> int:
    return 66 + len(node_hash) + len(body)


def _key_size(number: int, key: StateKey) -> int:
    # The types of events are few, and shared.
    return 150 + len(key[1])


def _nid_size(key: StateKey, number: int) -> int:
    return _key_size(number, key)


def record_root(txn: Transaction, room_nid: int, pos: int, root: bytes) -> None:
    """The current state of the room has this root from `pos` on."""
    txn.execute(
        "INSERT INTO room_states (room_nid, pos, root) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid, pos) DO UPDATE SET root = excluded.root",
        (room_nid, pos, root),
    )


def root_at(txn: Transaction, room_nid: int, pos: int) -> bytes | None:
    """The root of the room's state as it was current at a position."""
    found: bytes | None = txn.value(
        "SELECT root FROM room_states WHERE room_nid = ? AND pos <= ? ORDER BY pos DESC LIMIT 1",
        (room_nid, pos),
    )
    return found


def put_current(
    txn: Transaction, room_nid: int, changes: Iterable[tuple[StateKey, int | None]]
) -> None:
    """Change the projection of the current state; None removes an entry."""
    rows: list[tuple[int, str, str, int]] = []
    gone = []
    for key, event_nid in changes:
        if event_nid is None:
            gone.append((room_nid, *key))
        else:
            rows.append((room_nid, *key, event_nid))
    if len(rows) >= _PART:
        # In the order of the index, which is quicker so: by one text after the other, as comparing
        # rows takes longer.
        rows.sort(key=itemgetter(2))
        rows.sort(key=itemgetter(1))
        rows = _insert_new(txn, room_nid, rows)
    if rows:
        txn.many(
            "INSERT INTO current_state (room_nid, type, state_key, event_nid) VALUES (?, ?, ?, ?)"
            " ON CONFLICT (room_nid, type, state_key) DO UPDATE SET event_nid = excluded.event_nid",
            rows,
        )
    for entry in gone:
        txn.execute(
            "DELETE FROM current_state WHERE room_nid = ? AND type = ? AND state_key = ?", entry
        )


def _insert_new(
    txn: Transaction, room_nid: int, rows: list[tuple[int, str, str, int]]
) -> list[tuple[int, str, str, int]]:
    """Insert many entries that are new, as those of a room that is entered; the other ones are
    returned."""
    most = len(rows) // 2
    found = txn.all(
        "SELECT type, state_key FROM current_state WHERE room_nid = ? LIMIT ?", (room_nid, most)
    )
    if len(found) == most:
        return rows
    known = set(found)
    new = [row for row in rows if row[1:3] not in known] if known else rows
    # Without ON CONFLICT PostgreSQL takes them by COPY.
    txn.many(
        "INSERT INTO current_state (room_nid, type, state_key, event_nid) VALUES (?, ?, ?, ?)", new
    )
    return [row for row in rows if row[1:3] in known] if known else []


_JOINED = ", ".join("e." + column for column in COLUMNS.split(", "))


def current(
    txn: Transaction, room_nid: int, keys: Collection[StateKey] | None = None
) -> dict[StateKey, EventRow]:
    """Events of the room's current state: of these keys, or all."""
    sql = (
        f"SELECT c.type, c.state_key, {_JOINED} FROM current_state c"
        " JOIN events e ON e.event_nid = c.event_nid WHERE c.room_nid = ?"
    )
    if keys is None:
        rows = txn.all(sql, (room_nid,))
        return {(raw[0], raw[1]): EventRow(*raw[2:]) for raw in rows}
    found: dict[StateKey, EventRow] = {}
    wanted = list(keys)
    for start in range(0, len(wanted), 200):
        part = wanted[start : start + 200]
        values = ", ".join(["(?, ?)"] * len(part))
        rows = txn.all(
            f"{sql} AND (c.type, c.state_key) IN (VALUES {values})",
            [room_nid, *(text for key in part for text in key)],
        )
        found |= {(raw[0], raw[1]): EventRow(*raw[2:]) for raw in rows}
    return found


def current_numbers(txn: Transaction, room_nid: int, *, without: str) -> dict[StateKey, int]:
    """Numbers of the events of the room's current state, but for those of one type."""
    sql = "SELECT type, state_key, event_nid FROM current_state WHERE room_nid = ? AND type"
    # Two ranges of the index, so that very many of that type cost nothing.
    rows = txn.all(f"{sql} < ? UNION ALL {sql} > ?", (room_nid, without, room_nid, without))
    return {(row[0], row[1]): row[2] for row in rows}


def current_of_type(txn: Transaction, room_nid: int, event_type: str) -> dict[str, EventRow]:
    """Events of one type in the room's current state, by state key."""
    rows = txn.all(
        f"SELECT c.state_key, {_JOINED} FROM current_state c JOIN events e"
        " ON e.event_nid = c.event_nid WHERE c.room_nid = ? AND c.type = ?",
        (room_nid, event_type),
    )
    return {raw[0]: EventRow(*raw[1:]) for raw in rows}


def count_current(txn: Transaction, room_nid: int) -> int:
    """How many events the current state has."""
    return int(txn.value("SELECT COUNT(*) FROM current_state WHERE room_nid = ?", (room_nid,)))


def current_names(txn: Transaction, room_nid: int) -> bool:
    """Whether the room has a name or a canonical alias that is not empty."""
    keys = [("m.room.name", ""), ("m.room.canonical_alias", "")]
    for (event_type, _), row in current(txn, room_nid, keys).items():
        content = json.loads(row.json)["content"]
        value = content.get("name" if event_type == "m.room.name" else "alias")
        if isinstance(value, str) and value:
            return True
    return False
