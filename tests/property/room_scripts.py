"""Rooms that grow in branches, by a script that hypothesis makes up."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import strategies as st

from homeserver.core import state_res
from homeserver.core.auth_rules import check
from homeserver.core.event import Event
from homeserver.core.rejection import EventRejected
from tests.support.events import ALICE, BOB, CAROL, START_TS, RoomBuilder

USERS = (ALICE, BOB, CAROL, "@dave:d.example", "@erin:e.example")
BRANCHES = 3

Step: TypeAlias = tuple[int, str, int, int, int, int]
"""Branch, what, who, to whom, a value, seconds."""

KINDS = (
    *("join", "leave", "kick", "ban", "invite", "power_levels", "power_levels"),
    *("join_rules", "topic", "topic", "member_state", "merge"),
)
STEPS = st.lists(
    st.tuples(
        st.integers(0, BRANCHES - 1),
        st.sampled_from(KINDS),
        st.integers(0, len(USERS) - 1),
        st.integers(0, len(USERS) - 1),
        st.integers(0, 3),
        st.integers(0, 8),
    ),
    min_size=25,
    max_size=70,
)


def play(version: str, steps: list[Step]) -> list[RoomBuilder]:
    """Return the branches of a room after a script; steps that are not allowed are left out."""
    room = RoomBuilder.started(version, members=[BOB, CAROL], users={BOB: 100, CAROL: 50})
    branches = [room.fork() for _ in range(BRANCHES)]
    for step in steps:
        branch = branches[step[0]]
        if step[1] == "merge":
            _merge(branch, branches[step[4] % BRANCHES])
            continue
        event = _draft(branch, step)
        try:
            check(event, branch.state, create=room.create)
        except EventRejected:
            del room.events[event.event_id]
        else:
            branch.append(event)
    return branches


def _merge(branch: RoomBuilder, other: RoomBuilder) -> None:
    states = [branch.state_ids, other.state_ids]
    resolved = state_res.resolve(states, branch.events.get, branch.version)
    branch.merge(other, {key: branch.events[event_id] for key, event_id in resolved.items()})


def _draft(branch: RoomBuilder, step: Step) -> Event:
    _, kind, actor, other, value, seconds = step
    who, whom = USERS[actor], USERS[other]
    ts = START_TS + 1000 * seconds
    if kind == "join":
        return branch.join(who, {"displayname": str(value)}, ts=ts, add=False)
    if kind == "leave":
        return branch.leave(who, ts=ts, add=False)
    if kind in ("kick", "ban", "invite"):
        membership = "leave" if kind == "kick" else kind
        return branch.member(whom, membership, who, ts=ts, add=False)
    if kind == "power_levels":
        # Algorithm 2 can lose the power levels of a room, which is why there is a 2.1.
        current = branch.state.get(("m.room.power_levels", ""))
        users = {} if current is None else dict(current.content["users"])
        if not (branch.version.creators_privileged and whom == ALICE):
            users[whom] = (0, 20, 50, 100)[value]
        return branch.event("m.room.power_levels", who, {"users": users}, "", ts=ts, add=False)
    if kind == "join_rules":
        rule = ("public", "invite")[value % 2]
        return branch.join_rules(rule, who, ts=ts, add=False)
    if kind == "topic":
        content = {"topic": str(value)}
        return branch.event("m.room.topic", who, content, "", ts=ts, add=False)
    return branch.event("org.example", who, {"n": value}, whom, ts=ts, add=False)
