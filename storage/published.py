"""Rooms on the public list, and on the lists of bridged networks."""

from __future__ import annotations

from storage.transaction import Transaction


def set_published(txn: Transaction, room_nid: int, is_published: bool) -> None:
    """Put a room on the public list, or take it off."""
    if is_published:
        txn.execute(
            "INSERT INTO published_rooms (room_nid) VALUES (?) ON CONFLICT DO NOTHING",
            (room_nid,),
        )
    else:
        txn.execute("DELETE FROM published_rooms WHERE room_nid = ?", (room_nid,))


def is_published(txn: Transaction, room_nid: int) -> bool:
    """Whether a room is on the public list."""
    return txn.one("SELECT 1 FROM published_rooms WHERE room_nid = ?", (room_nid,)) is not None


def set_in_network(txn: Transaction, instance_id: str, room_nid: int, is_published: bool) -> None:
    """Put a room on the list of a network, or take it off."""
    if is_published:
        txn.execute(
            "INSERT INTO published_networks (instance_id, room_nid) VALUES (?, ?)"
            " ON CONFLICT DO NOTHING",
            (instance_id, room_nid),
        )
    else:
        txn.execute(
            "DELETE FROM published_networks WHERE instance_id = ? AND room_nid = ?",
            (instance_id, room_nid),
        )


def move(txn: Transaction, old_room_nid: int, new_room_nid: int) -> None:
    """Put one room in the place of another on every list."""
    if is_published(txn, old_room_nid):
        set_published(txn, new_room_nid, True)
        set_published(txn, old_room_nid, False)
    txn.execute(
        "UPDATE published_networks SET room_nid = ? WHERE room_nid = ?",
        (new_room_nid, old_room_nid),
    )


def rooms(
    txn: Transaction, instance_id: str | None = None, *, all_networks: bool = False
) -> dict[int, int]:
    """The rooms on a list: room number to the version of the room's head.

    Parameters: `instance_id`, the list of this network instead of the public one;
    `all_networks`, the public list and those of all networks.
    """
    if all_networks:
        chosen = (
            "SELECT room_nid FROM published_rooms UNION SELECT room_nid FROM published_networks"
        )
    elif instance_id is not None:
        chosen = "SELECT room_nid FROM published_networks WHERE instance_id = ?"
    else:
        chosen = "SELECT room_nid FROM published_rooms"
    args = (instance_id,) if instance_id is not None and not all_networks else ()
    rows = txn.all(f"SELECT room_nid, head_version FROM rooms WHERE room_nid IN ({chosen})", args)
    return {row[0]: row[1] for row in rows}
