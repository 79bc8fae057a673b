"""Finding events by words. Table `message_words`: FTS5 in SQLite, a `tsvector` in PostgreSQL.

Words come from `homeserver.core.words`, and neither database looks into them. Beside its words an
event has a scope: its room, and which kind of text it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from homeserver.core.words import Query
from storage import log_readers
from storage.dialect import array_text
from storage.events import ACCEPTED, COLUMNS, EventRow
from storage.timeline import Wanted
from storage.transaction import Effects, Row, Transaction

_MAX_POSITION = 16_000
_MAX_SAME = 200
_MAX_SCOPED_ROOMS = 200
"""Up to so many rooms are looked up by the index; of more the results are sifted."""
_SCOPE = "\u00a4"
"""Begins the words of a scope where they stand among the others: no word has it."""
_MANY = 20
_INSERT = "INSERT INTO message_words (event_nid, room_nid, ts, words) VALUES (?, ?, ?, ?)"
_EVENT = ", ".join("e." + column for column in COLUMNS.split(", "))


class Text(NamedTuple):
    """What is to be found of an event; `kind` is a letter."""

    event_nid: int
    room_nid: int
    ts: int
    kind: str
    words: Sequence[str]


class Hit(NamedTuple):
    """Where an event is among all that is found; `place` is its number, from 1 on."""

    rank: float
    ts: int
    event_nid: int
    place: int


class Scope(NamedTuple):
    """Where to look."""

    room_nids: Collection[int]
    kinds: Collection[str]
    wanted: Wanted = Wanted()


def add(txn: Transaction, texts: Iterable[Text], *, is_new: bool = False) -> None:
    """Make texts known.

    Parameters: `is_new`, whether their events were added by the same transaction.
    """
    if txn.dialect.name == "postgres":
        rows = [(each.event_nid, each.room_nid, each.ts, _vector(each)) for each in texts]
        if is_new and len(rows) > _MANY:
            # By COPY, as nothing can be there already.
            txn.many(_INSERT, rows)
        elif rows:
            query, args = txn.dialect.rows_of(("bigint", "bigint", "bigint", "text"), rows)
            txn.execute(
                "INSERT INTO message_words (event_nid, room_nid, ts, words)"
                f" SELECT a, b, c, d::tsvector FROM ({query}) AS found (a, b, c, d)"
                " ON CONFLICT (event_nid) DO NOTHING",
                args,
            )
        return
    txn.many(
        "INSERT OR REPLACE INTO message_words (rowid, room_nid, ts, scope, words)"
        " VALUES (?, ?, ?, ?, ?)",
        [
            (
                each.event_nid,
                each.room_nid,
                each.ts,
                f"r{each.room_nid} {each.kind}",
                " ".join(each.words),
            )
            for each in texts
        ],
    )


def add_kept(txn: Transaction, texts: Sequence[Text]) -> None:
    """Make texts known, but for those of events that are redacted or in no timeline."""
    kept = lock_texts(txn, [text.event_nid for text in texts])
    add(txn, [text for text in texts if text.event_nid in kept])


class AddRead(NamedTuple):
    """`add_kept` of what a reader of the log has read, which it moves on, all in one statement;
    nothing, if another process has moved it. For `Database.write_single`.

    Parameters: `name` of the reader; `after` and `upto`, between which it has read.
    """

    name: str
    after: int
    upto: int
    texts: Sequence[Text]

    @property
    def postgres(self) -> str:
        """See `storage.single.Single`."""
        return _ADD_READ

    def arguments(self) -> Sequence[str]:
        """See `storage.single.Single`."""
        columns = zip(
            *((each.event_nid, each.room_nid, each.ts, _vector(each)) for each in self.texts),
            strict=True,
        )
        return (array_text((self.after, self.upto)), self.name, *map(array_text, columns))

    def result(self, effects: Effects, row: Row) -> bool:
        """See `storage.single.Single`."""
        return bool(row[0])

    def in_steps(self, txn: Transaction) -> bool:
        """See `storage.single.Single`."""
        if not log_readers.advance(txn, self.name, self.after, self.upto):
            return False
        add_kept(txn, self.texts)
        return True


_ADD_READ = f"""
WITH {log_readers.MOVED}, kept AS MATERIALIZED (
    SELECT e.event_nid, found.room_nid, found.ts, found.words
    FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::text[])
        AS found (event_nid, room_nid, ts, words)
    JOIN events e ON e.event_nid = found.event_nid
    WHERE e.redacted_by IS NULL AND e.pos IS NOT NULL AND EXISTS (SELECT 1 FROM moved)
    ORDER BY e.event_nid FOR UPDATE OF e
), added AS (
    INSERT INTO message_words (event_nid, room_nid, ts, words)
    SELECT event_nid, room_nid, ts, words::tsvector FROM kept ON CONFLICT (event_nid) DO NOTHING
)
SELECT count(*) FROM moved
"""


def remove(txn: Transaction, event_nid: int) -> None:
    """Forget the text of an event."""
    key = "event_nid" if txn.dialect.name == "postgres" else "rowid"
    txn.execute(f"DELETE FROM message_words WHERE {key} = ?", (event_nid,))


def remove_many(txn: Transaction, event_nids: Collection[int]) -> None:
    """Forget the texts of events."""
    if event_nids:
        key = "event_nid" if txn.dialect.name == "postgres" else "rowid"
        where, args = txn.any_of(key, event_nids)
        txn.execute(f"DELETE FROM message_words WHERE {where}", args)


def lock_texts(txn: Transaction, event_nids: Collection[int]) -> set[int]:
    """Those of the events that are in a timeline and not redacted; that stays so until the
    transaction ends."""
    if not event_nids:
        return set()
    where, args = txn.any_of("event_nid", event_nids)
    rows = txn.all(
        f"SELECT event_nid FROM events WHERE {where} AND redacted_by IS NULL AND pos IS NOT NULL"
        f" ORDER BY event_nid{txn.dialect.for_update}",
        args,
    )
    return {row[0] for row in rows}


class Written(NamedTuple):
    """What of an event may be made findable: a part of `storage.events.EventRow`."""

    event_nid: int
    room_nid: int
    pos: int | None
    type: str
    state_key: str | None
    origin_server_ts: int
    json: str
    redacted_by: str | None


_WRITTEN = ", ".join(Written._fields)


def read(
    txn: Transaction, types: Collection[str], after: int, upto: int, limit: int
) -> list[Written]:
    """Accepted events of these types in `after < pos <= upto`, in order."""
    where, args = txn.any_of("type", types)
    rows = txn.all(
        f"SELECT {_WRITTEN} FROM events WHERE pos > ? AND pos <= ? AND {where}"
        f" AND status = {ACCEPTED} ORDER BY pos LIMIT ?",
        [after, upto, *args, limit],
    )
    return [Written(*raw) for raw in rows]


def search(
    txn: Transaction,
    query: Query,
    scope: Scope,
    *,
    recent: bool,
    behind: Hit | None,
    limit: int,
) -> list[tuple[Hit, EventRow]]:
    """Events that have the words: the best first, or the newest if `recent`.

    Parameters: `behind`, the last of those that were found before. By time they go on behind it,
    whatever came meanwhile; ranks depend on all that there is, so that there its place counts.
    """
    if not query or not scope.room_nids or not scope.kinds:
        return []
    found, args = _matching(txn, query, scope)
    columns = ("ts", "event_nid") if recent else ("rank", "ts", "event_nid")
    conditions = ["1 = 1"]
    join = ""
    only, more = scope.wanted.condition(txn)
    if only:
        join = " JOIN events x ON x.event_nid = m.event_nid"
        conditions.append(only.removeprefix(" AND "))
        args += more
    if behind is not None and recent:
        conditions.append("(m.ts, m.event_nid) < (?, ?)")
        args += [behind.ts, behind.event_nid]
    passed = behind.place if behind is not None else 0
    order = ", ".join(f"m.{column} DESC" for column in columns)
    rows = txn.all(
        f"WITH m AS MATERIALIZED ({found}), best AS (SELECT m.event_nid, m.ts, m.rank FROM m{join}"
        f" WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT ? OFFSET ?)"
        f" SELECT m.rank, m.ts, {_EVENT} FROM best m JOIN events e ON e.event_nid = m.event_nid"
        f" ORDER BY {order}",
        [*args, limit, 0 if recent else passed],
    )
    return [
        (Hit(float(row[0]), row[1], row[2], place), EventRow(*row[2:]))
        for place, row in enumerate(rows, passed + 1)
    ]


def _matching(txn: Transaction, query: Query, scope: Scope) -> tuple[str, list[object]]:
    """SQL for number, time and rank of what matches."""
    in_rooms, rooms = txn.any_of("w.room_nid", scope.room_nids)
    if txn.dialect.name == "postgres":
        wanted = _tsquery(query)
        return (
            "SELECT w.event_nid, w.ts,"
            " CAST(ts_rank(w.words, ?::tsquery) AS DOUBLE PRECISION) AS rank"
            f" FROM message_words w WHERE w.words @@ ?::tsquery AND {in_rooms}",
            [wanted, f"{wanted} & {_ts_scope(scope)}", *rooms],
        )
    return (
        "SELECT w.rowid AS event_nid, w.ts AS ts,"
        " -bm25(message_words, 0.0, 0.0, 0.0, 1.0) AS rank"
        f" FROM message_words w WHERE message_words MATCH ? AND {in_rooms}",
        [_fts_query(query, scope), *rooms],
    )


def _vector(text: Text) -> str:
    places: dict[str, list[int]] = {}
    for place, word in enumerate(text.words, 1):
        found = places.setdefault(word, [])
        if len(found) < _MAX_SAME:
            found.append(min(place, _MAX_POSITION))
    parts = [f"'{word}':{','.join(map(str, found))}" for word, found in places.items()]
    return f"'{_SCOPE}r{text.room_nid}' '{_SCOPE}{text.kind}' " + " ".join(parts)


def _tsquery(query: Query) -> str:
    parts = [f"'{word}'" for word in query.words]
    parts += [f"'{word}':*" for word in query.prefixes]
    return " & ".join(parts)


def _ts_scope(scope: Scope) -> str:
    parts = [" | ".join(f"'{_SCOPE}{kind}'" for kind in sorted(scope.kinds))]
    if len(scope.room_nids) <= _MAX_SCOPED_ROOMS:
        parts.append(" | ".join(f"'{_SCOPE}r{nid}'" for nid in scope.room_nids))
    return " & ".join(f"({part})" for part in parts)


def _fts_query(query: Query, scope: Scope) -> str:
    parts = [f'"{word}"' for word in query.words]
    parts += [f'"{word}" *' for word in query.prefixes]
    wanted = f"words : ({' AND '.join(parts)})"
    kinds = " OR ".join(f'"{kind}"' for kind in sorted(scope.kinds))
    wanted += f" AND scope : ({kinds})"
    if len(scope.room_nids) <= _MAX_SCOPED_ROOMS:
        rooms = " OR ".join(f'"r{nid}"' for nid in scope.room_nids)
        wanted += f" AND scope : ({rooms})"
    return wanted
