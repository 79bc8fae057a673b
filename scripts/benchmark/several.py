"""Hearth as several processes, which need Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scripts.benchmark import readings
from scripts.benchmark.servers import Hearth, Usage
from tests.support.services import RedisServer


class SeveralProcesses(Hearth):
    """So many processes of Hearth on PostgreSQL; what Redis uses counts to the database."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory, postgres=True)
        self._count = count
        self._redis = RedisServer(self.directory)

    def command(self) -> list[str]:
        return [*super().command(), "--processes", str(self._count)]

    def settings(self) -> dict[str, Any]:
        self._redis.create()
        return {**super().settings(), "redis": {"url": self._redis.url}}

    def usage(self) -> Usage:
        used = super().usage()
        return Usage(used.server, used.database + readings.cpu_seconds([self._redis.pid]))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._redis.stop()
