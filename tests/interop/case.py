"""What the tests with real servers have in common."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.interop.account import Account
from tests.interop.servers import INTEROP, KEEP, HearthServer, Server, SynapseServer, start_all
from tests.support.databases import scratch_directory
from tests.support.network import eventually

VERSIONS = ("1", "6", "9", "10", "11", "12")
_numbers = itertools.count(1)


def new_directory(kind: str) -> Path:
    """A directory for a server, not yet made."""
    base = os.environ.get(KEEP)
    parent = Path(base).absolute() if base else scratch_directory()
    return parent / f"{kind.lower()}-{os.getpid()}-{next(_numbers)}"


@functools.cache
def _pair() -> dict[str, Server]:
    return {
        "hearth": HearthServer(new_directory("hearth")),
        "synapse": SynapseServer(new_directory("synapse")),
    }


@functools.cache
def _end_at_exit() -> None:
    for server in _pair().values():
        atexit.register(server.kill)


class InteropCase(TestCase):
    """One Hearth and one Synapse, which all tests of the process share.

    `home` has the rooms, `away` comes from outside. Subclasses made by `both_ways` say which
    server is which.
    """

    timeout = 600
    home_kind: ClassVar[str] = "hearth"
    home: Server
    away: Server

    def setUp(self) -> Any:
        return Deferred.fromCoroutine(self.prepare())

    async def prepare(self) -> None:
        """Runs before each test: the servers run; `alice` is at home, `bob` away."""
        pair = _pair()
        await start_all(list(pair.values()))
        # Before what has started them ends, as that was registered first.
        _end_at_exit()
        away_kind = "synapse" if self.home_kind == "hearth" else "hearth"
        self.home, self.away = pair[self.home_kind], pair[away_kind]
        self.alice: Account = await self.home.register("alice")
        self.bob: Account = await self.away.register("bob")

    async def room(self, version: str | None = None, **body: Any) -> str:
        """A public room of alice's."""
        return await self.alice.create_room(version, **{"preset": "public_chat", **body})

    async def shared_room(self, version: str | None = None, **body: Any) -> str:
        """A room of alice's that bob has joined, as both servers know."""
        room_id = await self.room(version, **body)
        await self.bob.join(room_id, self.home.name)
        await self.alice.sees_member(room_id, self.bob.user_id, "join")
        return room_id

    async def agree(self, room_id: str, *users: Account) -> dict[str, str]:
        """Wait until the servers of the users hold the same current state; returns it."""

        async def same() -> dict[str, str] | None:
            states = [await user.state(room_id) for user in users]
            first = states[0]
            for user, state in zip(users, states, strict=True):
                differing = sorted(set(first.items()) ^ set(state.items()))
                assert not differing, f"{user.server.kind} differs: {differing}"
            return first

        state: dict[str, str] = await eventually(same, within=60)
        return state


def both_ways(namespace: dict[str, Any]) -> Callable[[type[InteropCase]], type[InteropCase]]:
    """Class decorator: runs the tests with the rooms on Hearth, and with them on Synapse.

    `namespace`: the module's `globals()`, which gets `<name>OnHearth` and `<name>OnSynapse`.
    """

    def decorate(cls: type[InteropCase]) -> type[InteropCase]:
        for kind in ("hearth", "synapse"):
            name = f"{cls.__name__}On{kind.capitalize()}"
            made = type(name, (cls,), {"home_kind": kind, "__module__": cls.__module__})
            namespace[name] = made
        # The class itself has no tests of its own. Without Synapse there are none at all, rather
        # than a hundred that are skipped: those with five servers say that they are.
        for name in [name for name in dir(cls) if name.startswith("test_")]:
            method = getattr(cls, name)
            delattr(cls, name)
            for kind in ("hearth", "synapse") if os.environ.get(INTEROP) else ():
                setattr(namespace[f"{cls.__name__}On{kind.capitalize()}"], name, method)
        return cls

    return decorate


def each_version(*versions: str) -> Callable[[Any], Any]:
    """Method decorator, below `with_versions`: the test takes a room version."""

    def decorate(method: Any) -> Any:
        method.versions = versions or VERSIONS
        return method

    return decorate


def with_versions(cls: Any) -> Any:
    """Class decorator: `test_x(self, version)` becomes `test_x_v1`, `test_x_v6`, ..."""
    for name, method in list(vars(cls).items()):
        for version in getattr(method, "versions", ()):
            setattr(cls, f"{name}_v{version}", _bound(method, f"{name}_v{version}", version))
        if hasattr(method, "versions"):
            delattr(cls, name)
    return cls


def _bound(method: Any, name: str, version: str) -> Any:
    async def run(self: Any) -> None:
        await method(self, version)

    run.__name__ = name
    run.__doc__ = method.__doc__
    return run
