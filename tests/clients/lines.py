"""The commands of a scripted client: JSON objects, one a line, read from standard input.

Each is {"do": NAME, ...}; one line goes back for each, {"ok": RESULT} or {"error": TEXT}.
Runs where Hearth's own packages are not: it imports nothing of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


async def until(check: Callable[[], Any]) -> Any:
    """Wait until something is so in the client's view; what it is."""
    while not (found := check()):
        await asyncio.sleep(0.02)
    return found


async def serve(client: Any) -> None:
    """Do what is asked, by the methods of `client`, until `end`."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        command = json.loads(line)
        name = command.pop("do")
        if name == "end":
            break
        try:
            answer: dict[str, Any] = {"ok": await getattr(client, name)(**command)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
    # What threads of the client's library still do is of no interest.
    os._exit(0)
