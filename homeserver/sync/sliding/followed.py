"""What a connection follows after an answer: all that is needed to tell it of messages from memory.

Messages change nothing of which rooms the lists have. They change the order, and with it what is
in the windows: but not if the room is in a window that begins at the top, where its place only
changes with others that are there, too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from homeserver.core.types import JsonObject
from homeserver.sync.notifier import Tally, tally
from homeserver.sync.request import Snapshot
from homeserver.sync.sliding.connection import SentRoom
from homeserver.sync.sliding.extensions import BITS, BitsOf
from homeserver.sync.sliding.request import RoomConfig, SlidingRequest
from homeserver.sync.sliding.room_list import Chosen, stamp
from homeserver.web.responses import encode_json

MAX_ROOMS = 1000
"""Of a connection's rooms; who follows more is told from the database."""


class Followed(NamedTuple):
    """What is told of a room that the user is in; many rooms share one."""

    limit: int
    """Events at once."""
    is_lazy: bool
    """Whether members come with the events that they sent."""
    has_receipts: bool
    has_typing: bool
    tail: bytes
    """What every section has, as members of a JSON object."""


@dataclass(frozen=True, slots=True)
class Follows:
    """A connection's rooms, by number."""

    rooms: Mapping[int, Followed]
    stamps: dict[int, int]
    """By what their place in lists is decided; of those that were told of anew."""
    loose: frozenset[int]
    """Rooms in lists that come into windows, or go up in them, when they come to the top."""
    waning: frozenset[int]
    """Rooms that are not followed, of which is to be noted when something happens there."""
    lists: bytes
    e2ee: bytes | None
    """The extension without news; None: it is not asked for."""
    to_device: bool
    ignored: frozenset[str]
    tallies: dict[int, Tally]
    """Unread counts of rooms that were told of."""
    moved_at: int
    """The position of the user's last change of membership."""


def follow(
    snapshot: Snapshot,
    request: SlidingRequest,
    chosen: Chosen,
    sent: Mapping[int, SentRoom],
    answer: JsonObject,
) -> Follows | None:
    """What a connection follows that was sent these rooms; None: what it is told next has to come
    from the database, messages or not."""
    newest, wanted = snapshot.newest, request.extensions
    if wanted.thread_subscriptions is not None or wanted.sticky is not None:
        return None
    if wanted.profiles is not None or newest.first_message is not None:
        return None
    if len(chosen.rooms) > MAX_ROOMS:
        return None
    if not (chosen.lists.keys() | set(chosen.subscribed)) <= chosen.configs.keys():
        return None  # The next answer has more rooms that are new to the client.
    if not all(_has_all(config, sent.get(nid)) for nid, config in chosen.configs.items()):
        return None
    e2ee = answer["extensions"].get("e2ee")
    if e2ee is not None:
        e2ee = {name: value for name, value in e2ee.items() if name != "device_lists"}
    counts, volumes = snapshot.counts, snapshot.volumes
    return Follows(
        rooms=_rooms(request, chosen),
        stamps={nid: stamp(chosen.rooms[nid]) for nid in chosen.configs},
        loose=frozenset(chosen.loose),
        waning=frozenset(
            nid for nid, room in sent.items() if nid not in chosen.configs and room.upto is None
        ),
        lists=encode_json(answer["lists"]),
        e2ee=None if e2ee is None else encode_json(e2ee),
        to_device=wanted.to_device is not None,
        ignored=snapshot.ignored,
        tallies={nid: tally(count, volumes[nid]) for nid, count in counts.items()},
        moved_at=max(newest.membership or 0, newest.gone or 0),
    )


def _has_all(config: RoomConfig, sent: SentRoom | None) -> bool:
    """Whether a connection has what it asks for of a room but for news."""
    return (
        sent is not None
        and sent.upto is None
        and config.timeline_limit <= sent.config.timeline_limit
        and config.required_state.pairs <= sent.config.required_state.pairs
    )


def _rooms(request: SlidingRequest, chosen: Chosen) -> dict[int, Followed]:
    shared: dict[Followed, Followed] = {}
    bits = BitsOf(request.extensions, chosen)
    found = {}
    for nid, config in chosen.configs.items():
        room = chosen.rooms[nid]
        if room.membership != "join":
            continue
        tail: JsonObject = {"membership": "join"}
        if room.room_id in chosen.direct:
            tail["is_dm"] = True
        if nid in chosen.lists:
            tail["lists"] = chosen.lists[nid]
        here = bits.of(nid)
        one = Followed(
            config.timeline_limit,
            config.required_state.is_lazy,
            bool(here & BITS["receipts"]),
            bool(here & BITS["typing"]),
            encode_json(tail)[1:-1],
        )
        found[nid] = shared.setdefault(one, one)
    return found


def asks_the_same(request: SlidingRequest, other: SlidingRequest) -> bool:
    """Whether two requests differ only in where the client is."""
    if request.lists != other.lists or request.subscriptions != other.subscriptions:
        return False
    one, two = request.extensions, other.extensions
    if one == two:
        return True
    return replace(one, to_device=None) == replace(two, to_device=None) and (
        (one.to_device is None) == (two.to_device is None)
    )


def size(rooms: Collection[int]) -> int:
    """Bytes that following these takes, roughly."""
    return 2_000 + 300 * len(rooms)
