"""Signing keys of other servers, and the answers that told of them.

Server-Server API, "Retrieving server keys". Whether an answer is properly signed is for the
caller to check; how a new answer goes together with what is known is decided here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from operator import attrgetter
from typing import NamedTuple

from storage.transaction import Transaction

CHANGED = "server_keys"
"""Cache invalidated, by server name, when a key is worth less than it was or another one."""


class KeyRow(NamedTuple):
    """A key of a server. `verify_key` is base64; times in ms.

    `valid_until_ts` of an `is_old` key is when it was retired. `answer_*` are of the newest
    answer that lists the key.
    """

    server_name: str
    key_id: str
    verify_key: str
    valid_until_ts: int
    is_old: bool
    answer_hash: bytes
    answer_valid_until_ts: int
    answer_fetched_ts: int


class NewKey(NamedTuple):
    """A key as an answer lists it."""

    verify_key: str
    valid_until_ts: int
    is_old: bool


class Answer(NamedTuple):
    """What a server publishes. `keys` by key ID; `json` is the whole answer, signatures too.

    `valid_until_ts` (ms) is already cut to what servers may believe. `is_direct`: from the server
    itself, not from a notary.
    """

    server_name: str
    keys: Mapping[str, NewKey]
    valid_until_ts: int
    fetched_ts: int
    is_direct: bool
    json: str


_ROW = """
    SELECT k.server_name, k.key_id, k.verify_key, k.valid_until_ts, k.is_old, k.answer_hash,
           a.valid_until_ts, a.fetched_ts
    FROM server_keys AS k JOIN server_key_answers AS a
        ON a.server_name = k.server_name AND a.answer_hash = k.answer_hash
"""


def of_servers(txn: Transaction, server_names: Collection[str]) -> list[KeyRow]:
    """All known keys of some servers, in no particular order."""
    condition, args = txn.any_of("k.server_name", server_names)
    rows = txn.all(f"{_ROW} WHERE {condition}", args)
    return [KeyRow._make((*row[:4], bool(row[4]), bytes(row[5]), *row[6:])) for row in rows]


def answers(txn: Transaction, hashes: Iterable[tuple[str, bytes]]) -> list[str]:
    """The JSON of answers, given as server name and `answer_hash`, in this order."""
    found = []
    for server_name, answer_hash in hashes:
        json: str | None = txn.value(
            "SELECT json FROM server_key_answers WHERE server_name = ? AND answer_hash = ?",
            (server_name, answer_hash),
        )
        if json is not None:
            found.append(json)
    return found


def store(txn: Transaction, new: Iterable[Answer], now_ms: int) -> list[KeyRow]:
    """Take in answers; returns all keys of their servers afterwards.

    For each key the answer that is valid longest counts, so that an outdated copy changes nothing,
    and a key that a newer answer does not list stays as it was. As long as a key is valid no other
    takes its ID. Only the server itself makes a retired key valid again.
    """
    new = list(new)
    # In this order, as other processes do, so that none waits for one that waits for it.
    later = sorted(new, key=attrgetter("server_name"))
    while later:
        # One of each server at a time: the next is compared with what became of it.
        by_server: dict[str, Answer] = {}
        later = [it for it in later if by_server.setdefault(it.server_name, it) is not it]
        _store_each(txn, by_server, now_ms)
    return of_servers(txn, {answer.server_name for answer in new})


def _store_each(txn: Transaction, new: Mapping[str, Answer], now_ms: int) -> None:
    """Store an answer of each of these servers."""
    known = {(row.server_name, row.key_id): row for row in of_servers(txn, new)}
    answers: list[tuple[object, ...]] = []
    keys: list[tuple[object, ...]] = []
    worth_less: list[str] = []
    for name, answer in new.items():
        better = {
            key_id: key
            for key_id, key in answer.keys.items()
            if (name, key_id) not in known or _replaces(answer, key, known[name, key_id], now_ms)
        }
        if not better:
            continue
        digest = hashlib.sha256(answer.json.encode()).digest()
        answers.append((name, digest, answer.valid_until_ts, answer.fetched_ts, answer.json))
        keys.extend((name, key_id, *key, digest) for key_id, key in better.items())
        if any(
            (name, key_id) in known and _is_worth_less(key, known[name, key_id])
            for key_id, key in better.items()
        ):
            worth_less.append(name)
    if not answers:
        return
    txn.many(
        "INSERT INTO server_key_answers"
        " (server_name, answer_hash, valid_until_ts, fetched_ts, json)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (server_name, answer_hash) DO UPDATE SET"
        " valid_until_ts = excluded.valid_until_ts, fetched_ts = excluded.fetched_ts",
        answers,
    )
    txn.many(
        "INSERT INTO server_keys"
        " (server_name, key_id, verify_key, valid_until_ts, is_old, answer_hash)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (server_name, key_id) DO UPDATE SET"
        " verify_key = excluded.verify_key, valid_until_ts = excluded.valid_until_ts,"
        " is_old = excluded.is_old, answer_hash = excluded.answer_hash",
        keys,
    )
    condition, args = txn.any_of("server_name", [row[0] for row in answers])
    txn.execute(
        f"DELETE FROM server_key_answers WHERE {condition} AND NOT EXISTS (SELECT 1"
        " FROM server_keys AS k WHERE k.server_name = server_key_answers.server_name"
        " AND k.answer_hash = server_key_answers.answer_hash)",
        args,
    )
    for name in worth_less:
        txn.invalidate(CHANGED, name)


def _replaces(answer: Answer, key: NewKey, known: KeyRow, now_ms: int) -> bool:
    if known.is_old and not key.is_old and not answer.is_direct:
        return False
    is_newer = answer.valid_until_ts >= known.answer_valid_until_ts
    if key.verify_key != known.verify_key:
        return is_newer and known.valid_until_ts < now_ms
    return is_newer or (answer.is_direct and key.is_old)


def _is_worth_less(key: NewKey, known: KeyRow) -> bool:
    return key.verify_key != known.verify_key or key.valid_until_ts < known.valid_until_ts
