"""What is guarded, and the reference that is measured before anything of the product is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

Work = Callable[[], object]

REFERENCE = "the interpreter (a reference)"


@dataclass(frozen=True, slots=True)
class Guarded:
    """How a function is made, and how often it is called for a measurement."""

    make: Callable[[], Work]
    times: int = 50


def _reference() -> Work:
    """The interpreter itself: tells one build of Python from another."""

    def plus(thing: list[int], other: int) -> int:
        return thing[0] + other

    def work() -> object:
        found: dict[str, int] = {}
        for number in range(200):
            thing = [number]
            found[f"key {number % 50}"] = plus(thing, found.get("key 3", 0))
        return json.dumps(sorted(found.items()))

    return work


INTERPRETER = Guarded(_reference, 6)
