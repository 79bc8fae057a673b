"""Names for the plain data that the whole server passes around."""

from __future__ import annotations

from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
"""A JSON object as parsed."""

StateKey: TypeAlias = tuple[str, str]
"""The key of a piece of room state: (event type, state key)."""
