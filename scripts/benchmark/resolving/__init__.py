"""State resolution alone: the resolvers of both servers on the same fork, each in a process."""

from __future__ import annotations

from pathlib import Path


def by_synapse_file() -> Path:
    """The program for Synapse's interpreter, which cannot import it from here."""
    return Path(__file__).with_name("by_synapse.py")
