"""Finding users by words of their names and IDs. Tables `user_words` and `open_rooms`.

Which words there are says nothing about who may find the user by them: that is asked of the
memberships when somebody searches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from storage.transaction import Transaction

_PART = 500
_LAST = "\U0010ffff"


def changed_users(txn: Transaction, after: int, upto: int, limit: int) -> tuple[int, set[str]]:
    """Users of whom a membership changed in `after < pos <= upto`.

    About `limit` of them; and up to which position that is all.
    """
    rows = txn.all(
        "SELECT pos, user_id FROM memberships WHERE pos > ? AND pos <= ? ORDER BY pos LIMIT ?",
        (after, upto, limit),
    )
    if len(rows) == limit:
        # Many may have changed at one position.
        upto = rows[-1][0]
        rows += txn.all("SELECT pos, user_id FROM memberships WHERE pos = ?", (upto,))
    return upto, {row[1] for row in rows}


def changed_rooms(txn: Transaction, after: int, upto: int) -> set[int]:
    """Rooms of which the state changed in `after < pos <= upto`."""
    rows = txn.all(
        "SELECT DISTINCT room_nid FROM room_states WHERE pos > ? AND pos <= ?", (after, upto)
    )
    return {row[0] for row in rows}


def joined(txn: Transaction, user_ids: Collection[str]) -> dict[str, set[str]]:
    """Those of the users who are in a room, with the names that they have in rooms."""
    found: dict[str, set[str]] = {}
    for part in _parts(user_ids):
        where, args = txn.any_of("user_id", part)
        for user_id, name in txn.all(
            f"SELECT DISTINCT user_id, displayname FROM memberships WHERE {where}"
            " AND membership = 'join'",
            args,
        ):
            names = found.setdefault(user_id, set())
            if name is not None:
                names.add(name)
    return found


def words_of(txn: Transaction, user_ids: Collection[str]) -> dict[str, set[str]]:
    """The words that these users are found by."""
    found: dict[str, set[str]] = {user_id: set() for user_id in user_ids}
    for part in _parts(user_ids):
        where, args = txn.any_of("user_id", part)
        for user_id, word in txn.all(f"SELECT user_id, word FROM user_words WHERE {where}", args):
            found[user_id].add(word)
    return found


def put(
    txn: Transaction, words: Mapping[str, Collection[str]], shared: Collection[str] = ()
) -> None:
    """Set the words that these users are found by.

    Parameters: `shared`, those of the users of whom others may do the same now.
    """
    for part in _parts(words):
        where, args = txn.any_of("user_id", part)
        txn.execute(f"DELETE FROM user_words WHERE {where}", args)
    insert = "INSERT INTO user_words (word, user_id) VALUES (?, ?)"
    alone = sorted(words.keys() - set(shared))
    # Without ON CONFLICT PostgreSQL takes them by COPY, and in this order its indices are quick.
    txn.many(insert, _rows(alone, words))
    txn.many(f"{insert} ON CONFLICT DO NOTHING", _rows(sorted(shared), words))


def _rows(user_ids: Iterable[str], words: Mapping[str, Collection[str]]) -> list[tuple[str, str]]:
    return [(word, user_id) for user_id in user_ids for word in sorted(words[user_id])]


def set_open(txn: Transaction, rooms: Mapping[int, bool]) -> None:
    """Note which rooms everybody may join or read, and which not."""
    for room_nid, is_open in rooms.items():
        if is_open:
            txn.execute(
                "INSERT INTO open_rooms (room_nid) VALUES (?) ON CONFLICT DO NOTHING", (room_nid,)
            )
        else:
            txn.execute("DELETE FROM open_rooms WHERE room_nid = ?", (room_nid,))


def open_among(txn: Transaction, room_nids: Collection[int]) -> set[int]:
    """Those of the rooms that everybody may join or read."""
    where, args = txn.any_of("room_nid", room_nids)
    return {row[0] for row in txn.all(f"SELECT room_nid FROM open_rooms WHERE {where}", args)}


def find(txn: Transaction, reader_id: str, beginnings: Sequence[str], limit: int) -> list[str]:
    """Users with words of all these beginnings who share a room with the reader, or are in a room
    that is open to everybody; not the reader."""
    first, *others = beginnings
    sql = "SELECT DISTINCT w.user_id FROM user_words w WHERE w.word >= ? AND w.word < ?"
    args: list[object] = [first, first + _LAST]
    for beginning in others:
        sql += (
            " AND EXISTS (SELECT 1 FROM user_words o WHERE o.user_id = w.user_id"
            " AND o.word >= ? AND o.word < ?)"
        )
        args += [beginning, beginning + _LAST]
    sql += (
        " AND w.user_id <> ? AND EXISTS (SELECT 1 FROM memberships m"
        " WHERE m.user_id = w.user_id AND m.membership = 'join'"
        " AND (m.room_nid IN (SELECT room_nid FROM open_rooms) OR EXISTS"
        " (SELECT 1 FROM memberships r WHERE r.room_nid = m.room_nid AND r.user_id = ?"
        " AND r.membership = 'join'))) LIMIT ?"
    )
    return [row[0] for row in txn.all(sql, [*args, reader_id, reader_id, limit])]


def names_for(
    txn: Transaction, reader_id: str, user_ids: Collection[str]
) -> dict[str, list[tuple[str | None, str | None]]]:
    """Names and avatars that users have in rooms that the reader is in or that are open to
    everybody, the newest first."""
    where, args = txn.any_of("m.user_id", user_ids)
    found: dict[str, list[tuple[str | None, str | None]]] = {}
    for user_id, name, avatar in txn.all(
        f"SELECT m.user_id, m.displayname, m.avatar_url FROM memberships m WHERE {where}"
        " AND m.membership = 'join' AND (m.room_nid IN (SELECT room_nid FROM open_rooms)"
        " OR EXISTS (SELECT 1 FROM memberships r WHERE r.room_nid = m.room_nid"
        " AND r.user_id = ? AND r.membership = 'join')) ORDER BY m.pos DESC",
        [*args, reader_id],
    ):
        found.setdefault(user_id, []).append((name, avatar))
    return found


def _parts(values: Iterable[str]) -> list[list[str]]:
    listed = sorted(values)
    return [listed[start : start + _PART] for start in range(0, len(listed), _PART)]
