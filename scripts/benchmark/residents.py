"""The servers that a measured server meets: one process plays all of them, see `tests.measure`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.measure.lab import ResidentsProcess


class Residents:
    """Started when they are first wanted."""

    def __init__(self, directory: Path, servers: int) -> None:
        self._directory = directory
        self._servers = servers
        self._process: ResidentsProcess | None = None

    def _started(self) -> ResidentsProcess:
        if self._process is None:
            self._process = ResidentsProcess(self._directory, self._servers)
        return self._process

    @property
    def first(self) -> str:
        """The name of the server through which their rooms are joined."""
        return self._started().names[0]

    def tell(self, what: str, **body: Any) -> Any:
        """Have something done; see `tests.measure.resident.Control`. Raises RuntimeError."""
        return self._started().tell(what, **body)

    def close(self) -> None:
        """End them, if they run."""
        if self._process is not None:
            self._process.close()
