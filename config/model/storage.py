"""Where data is kept."""

from __future__ import annotations

from dataclasses import dataclass

from config.types import Duration, Size, option


def _check_database_url(url: str | None) -> str | None:
    if url is None or url.startswith(("sqlite:///", "postgresql://", "postgres://")):
        return None
    return "must start with sqlite:/// or postgresql://"


def _check_redis_url(url: str) -> str | None:
    if url.startswith(("redis://", "unix://")):
        return None
    return "must start with redis:// or unix://"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """The database."""

    url: str | None = option(
        None,
        "sqlite:///PATH or postgresql://user:password@host:port/name. "
        "Without it: SQLite, homeserver.db in the data directory.",
        check=_check_database_url,
        example="sqlite:///./data/homeserver.db",
        secret=True,
    )
    connections: int = option(
        6, "Connections of one process to PostgreSQL; readers on SQLite.", minimum=2, maximum=1000
    )
    start_timeout: Duration = option(
        Duration(30_000), "How long the start keeps trying to reach the database, and Redis."
    )

    @property
    def is_sqlite(self) -> bool:
        return self.url is None or self.url.startswith("sqlite:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """Redis: hints between processes, typing and presence."""

    url: str = option(
        doc="redis://:password@host:port/number.", check=_check_redis_url, secret=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """What each process keeps in memory so as not to read or compute it again."""

    total_bytes: Size = option(
        Size(64 << 20),
        "What all caches of a process may take together. A process takes it as the need arises, on "
        "top of the 80M or so that it needs itself.",
        minimum=1 << 20,
    )
    memory_limit: Size | None = option(
        None,
        "When a process takes more memory than this, its caches are made smaller until it does "
        "not, down to a sixteenth of total_bytes.",
        minimum=64 << 20,
        example="512M",
    )
