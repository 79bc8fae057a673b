"""Which other servers are in which rooms. Table `room_servers`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from storage.transaction import Transaction


def change(txn: Transaction, room_nid: int, joined: Mapping[str, int]) -> None:
    """Count users in or out: `joined` has by how many each server has more of them."""
    txn.many(
        "INSERT INTO room_servers (room_nid, server_name, joined) VALUES (?, ?, ?)"
        " ON CONFLICT (room_nid, server_name)"
        " DO UPDATE SET joined = room_servers.joined + excluded.joined",
        [(room_nid, name, difference) for name, difference in joined.items() if difference],
    )
    txn.execute("DELETE FROM room_servers WHERE room_nid = ? AND joined <= 0", (room_nid,))


def put(txn: Transaction, room_nid: int, joined: Mapping[str, int]) -> None:
    """Say anew which servers are in a room."""
    txn.execute("DELETE FROM room_servers WHERE room_nid = ?", (room_nid,))
    txn.many(
        "INSERT INTO room_servers (room_nid, server_name, joined) VALUES (?, ?, ?)",
        [(room_nid, server_name, number) for server_name, number in joined.items()],
    )


def of_room(txn: Transaction, room_nid: int) -> list[str]:
    """The other servers in a room, those with the most users first."""
    rows = txn.all(
        "SELECT server_name FROM room_servers WHERE room_nid = ? ORDER BY joined DESC, server_name",
        (room_nid,),
    )
    return [row[0] for row in rows]


def of_rooms(txn: Transaction, room_nids: Collection[int]) -> dict[int, list[str]]:
    """The other servers in each of these rooms, in no order."""
    found: dict[int, list[str]] = {number: [] for number in room_nids}
    if not room_nids:
        return found
    where, args = txn.any_of("room_nid", room_nids)
    for room_nid, server_name in txn.all(
        f"SELECT room_nid, server_name FROM room_servers WHERE {where}", args
    ):
        found[room_nid].append(server_name)
    return found


def rooms_of(txn: Transaction, server_name: str) -> list[int]:
    """Numbers of the rooms that a server is in."""
    rows = txn.all("SELECT room_nid FROM room_servers WHERE server_name = ?", (server_name,))
    return [row[0] for row in rows]


def is_in(txn: Transaction, room_nid: int, server_name: str) -> bool:
    """Whether another server has a user in the room."""
    sql = "SELECT 1 FROM room_servers WHERE room_nid = ? AND server_name = ?"
    return txn.one(sql, (room_nid, server_name)) is not None


def count(txn: Transaction, room_nid: int) -> int:
    """How many other servers are in a room."""
    found: int = txn.value("SELECT COUNT(*) FROM room_servers WHERE room_nid = ?", (room_nid,))
    return found
