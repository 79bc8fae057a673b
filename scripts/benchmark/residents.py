"""The servers that a measured server meets: one process plays all of them, see `tests.measure`."""

from __future__ import annotations

from pathlib import Path

from tests.measure.lab import ResidentsProcess


class Residents:
    """Started when they are first wanted. Methods raise RuntimeError if something is refused."""

    def __init__(self, directory: Path, servers: int) -> None:
        self._directory = directory
        self._servers = servers
        self._running: ResidentsProcess | None = None

    @property
    def _process(self) -> ResidentsProcess:
        if self._running is None:
            self._running = ResidentsProcess(self._directory, self._servers)
        return self._running

    @property
    def first(self) -> str:
        """The name of the server through which their rooms are joined."""
        return self._process.names[0]

    def room(self, members: int, version: str) -> tuple[str, str]:
        """Make a room of so many members; its ID, and the member that joined it last."""
        room_id = self._process.tell("room", members=members, version=version)["room_id"]
        number = members - 2
        names = self._process.names
        return room_id, f"@user{number:05}:{names[number % len(names)]}"

    def prepare(self, room_id: str, count: int, size: int) -> None:
        """Make so many transactions of so many messages."""
        self._process.tell("transactions", room_id=room_id, count=count, size=size)

    def send(self, destination: str) -> float:
        """Send the next prepared transaction; the seconds until it was answered."""
        done = self._process.tell("send", destination=destination)
        if done["refused"]:
            raise RuntimeError(f"{done['refused']} events of a transaction were refused")
        return float(done["seconds"])

    def close(self) -> None:
        """End them, if they run."""
        if self._running is not None:
            self._running.close()
