"""Messages for devices of other servers' users. Table `outgoing_to_device`.

They stay until the other server has taken the transaction that they were in, for however long
that one is away. Only where more than `MAX_WAITING` or `MAX_WAITING_BYTES` wait for one server,
the oldest are given up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from storage.outgoing import CHANNEL
from storage.transaction import Transaction

MAX_BYTES = 64 * 1024
"""Of one message's EDU, roughly; more recipients are spread over several."""

MAX_WAITING = 100_000
MAX_WAITING_BYTES = 1 << 30
"""What may wait for one server: far more than gathers while an ordinary server is down."""

_LARGEST = 4 * 1024 * 1024
"""No message is larger than the request in which a client sent it."""

Messages = Mapping[str, Mapping[str, str]]
"""User IDs to device IDs, or `*`, to the JSON text of the content."""


class Waiting(NamedTuple):
    """A waiting message; `content` is the JSON text of an `m.direct_to_device`'s content."""

    pos: int
    content: str


def add(
    txn: Transaction,
    destination: str,
    sender: str,
    event_type: str,
    message_id: str,
    messages: Messages,
) -> None:
    """Queue messages of one type for a server.

    Parameters: `message_id`, at most 28 characters, unique for the sender (several EDUs append
    a number to it). Advances the clock: to be called last in a transaction.
    """
    for number, part in enumerate(_parts(messages)):
        own_id = message_id if number == 0 else f"{message_id}.{number}"
        users = ",".join(
            f"{_text(user_id)}:{{{','.join(devices)}}}" for user_id, devices in sorted(part.items())
        )
        content = (
            f'{{"message_id":{_text(own_id)},"messages":{{{users}}},'
            f'"sender":{_text(sender)},"type":{_text(event_type)}}}'
        )
        txn.execute(
            "INSERT INTO outgoing_to_device (destination, pos, content) VALUES (?, ?, ?)",
            (destination, txn.next_pos(), content),
        )
    if messages:
        txn.notify(CHANNEL)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _parts(messages: Messages) -> list[dict[str, list[str]]]:
    """The messages as encoded members of objects, divided so that no part is large."""
    parts: list[dict[str, list[str]]] = []
    room = 0
    for user_id, devices in sorted(messages.items()):
        for device_id, content in sorted(devices.items()):
            member = f"{_text(device_id)}:{content}"
            size = len(member.encode()) + len(user_id.encode()) + 8
            if not parts or size > room:
                parts.append({})
                room = MAX_BYTES
            parts[-1].setdefault(user_id, []).append(member)
            room -= size
    return parts


def destinations(txn: Transaction, after: int, upto: int) -> list[str]:
    """Servers for which something was queued in `after < pos <= upto`."""
    rows = txn.all(
        "SELECT DISTINCT destination FROM outgoing_to_device WHERE pos > ? AND pos <= ?",
        (after, upto),
    )
    return [row[0] for row in rows]


def waiting(
    txn: Transaction, destination: str, after: int, max_messages: int, max_bytes: int
) -> tuple[list[Waiting], bool]:
    """What waits for a server behind `after`, the oldest first, and whether that is all."""
    rows = txn.all(
        "SELECT pos, content FROM outgoing_to_device WHERE destination = ? AND pos > ?"
        " ORDER BY pos LIMIT ?",
        (destination, after, max_messages),
    )
    found: list[Waiting] = []
    size = 0
    for pos, content in rows:
        size += len(content)
        if found and size > max_bytes:
            return found, False
        found.append(Waiting(pos, content))
    return found, len(rows) < max_messages


def crowded(
    txn: Transaction, max_messages: int = MAX_WAITING, max_bytes: int = MAX_WAITING_BYTES
) -> list[str]:
    """Servers for which so much waits that some of it may have to be given up."""
    few = min(max_messages, max_bytes // _LARGEST)
    rows = txn.all(
        "SELECT destination FROM outgoing_to_device GROUP BY destination HAVING COUNT(*) > ?",
        (few,),
    )
    return [row[0] for row in rows]


def drop_oldest(
    txn: Transaction,
    destination: str,
    max_messages: int = MAX_WAITING,
    max_bytes: int = MAX_WAITING_BYTES,
) -> int:
    """Give up what is beyond the bounds, the oldest first; how many messages that were."""
    size = "OCTET_LENGTH(content)"
    if txn.dialect.name == "sqlite":
        size = "LENGTH(CAST(content AS BLOB))"
    upto = txn.value(
        "SELECT MAX(pos) FROM (SELECT pos, ROW_NUMBER() OVER newest AS number,"
        f" SUM({size}) OVER newest AS total FROM outgoing_to_device WHERE destination = ?"
        " WINDOW newest AS (ORDER BY pos DESC)) AS counted WHERE number > ? OR total > ?",
        (destination, max_messages, max_bytes),
    )
    if upto is None:
        return 0
    return txn.execute(
        "DELETE FROM outgoing_to_device WHERE destination = ? AND pos <= ?", (destination, upto)
    )


def delete(txn: Transaction, destination: str, upto: int) -> None:
    """The server has these."""
    txn.execute(
        "DELETE FROM outgoing_to_device WHERE destination = ? AND pos <= ?", (destination, upto)
    )
