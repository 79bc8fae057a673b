"""Commands that act on the homeserver's data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from config import Config
from homeserver.cli.options import Failure
from homeserver.core.errors import MatrixError

if TYPE_CHECKING:
    from homeserver.app import Homeserver


def with_homeserver(config: Config, act: Callable[[Homeserver], Awaitable[None]]) -> None:
    """Open the homeserver's data without serving anyone, and act on it."""
    from homeserver.server import run_once
    from homeserver.startup import CannotStart

    async def guarded(hs: Homeserver) -> None:
        try:
            await act(hs)
        except MatrixError as error:
            raise Failure(error.error) from None

    try:
        run_once(config, guarded)
    except CannotStart as error:
        raise Failure(str(error)) from None
