"""Calls that run at the same time."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults


def together(*calls: Awaitable[Any]) -> Deferred[list[Any]]:
    """Run calls at the same time; results, with exceptions in their places."""

    async def caught(call: Awaitable[Any]) -> Any:
        try:
            return await call
        except Exception as problem:
            return problem

    return gatherResults([Deferred.fromCoroutine(caught(call)) for call in calls])
