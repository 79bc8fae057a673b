"""State resolution: one state out of several, by the algorithm of the room version.

The room state before an event is the resolution of the states after its `prev_events`.
The algorithms themselves are in `state_res_v1` and `state_res_v2`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from homeserver.core import state_res_v1, state_res_v2
from homeserver.core.room_versions import RoomVersion, StateRes
from homeserver.core.state_sets import (
    Events,
    FullConflictedSet,
    GetEvent,
    GetEvents,
    StateMap,
    Step,
    separate,
)
from homeserver.core.types import StateKey


def resolve(
    state_sets: Sequence[Mapping[StateKey, str]],
    get_event: GetEvent,
    version: RoomVersion,
    *,
    get_events: GetEvents | None = None,
    is_rejected: Callable[[str], bool] | None = None,
) -> StateMap:
    """Return the resolution of one or more states, each (type, state key) to event ID.

    See `Events` for the callables. The order of the states does not matter. Work grows with the
    conflicts and their auth chains; only where these differ between the states it takes one look
    at each unconflicted event. Events that are not known are passed over.
    """
    unconflicted, conflicted_sets = separate(state_sets)
    changes = resolve_conflicts(
        conflicted_sets,
        unconflicted,
        get_event,
        version,
        get_events=get_events,
        is_rejected=is_rejected,
    )
    unconflicted.update(changes)
    return unconflicted


def resolve_conflicts(
    conflicted_sets: Sequence[Mapping[StateKey, str]],
    unconflicted: Mapping[StateKey, str],
    get_event: GetEvent,
    version: RoomVersion,
    *,
    get_events: GetEvents | None = None,
    is_rejected: Callable[[str], bool] | None = None,
    full_conflicted_set: FullConflictedSet | None = None,
    steps: list[Step] | None = None,
) -> StateMap:
    """Resolve states of which the difference is known already.

    `conflicted_sets` has for each state what it holds under the keys in which the states differ,
    `unconflicted` is what they share: keys are looked up in it, and its values are walked through
    only where the auth chains of the conflicts differ, unless `full_conflicted_set` is given (see
    `Events`). Returns what has to be set on top of the unconflicted state. `steps`, if given, is
    told what was looked at, in order (version 2 and up). The rest is as in `resolve`.
    """
    if not any(conflicted_sets):
        return {}
    events = Events(get_event, get_events, is_rejected, full_conflicted_set, steps)
    if version.state_res is StateRes.V1:
        return state_res_v1.resolve_conflicts(conflicted_sets, unconflicted, events)
    return state_res_v2.resolve_conflicts(conflicted_sets, unconflicted, events, version)
