"""Migrations: forward only, numbered files in `storage/schema`, recorded in `schema_version`.

`NNNN_name.sql` holds statements that end in ";" and a newline; `NNNN_name.py` a function
`migrate(txn)`. Each runs once, in a transaction that keeps other processes out.

`python -m storage.migrate dump` writes `storage/schema/current.sql`, the schema they lead to.
"""

from __future__ import annotations

import re
import runpy
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.dialect import PORTABLE, statements
from storage.errors import DatabaseTooNew
from storage.pool import Session
from storage.sqlite import SqliteSession
from storage.transaction import Transaction

SCHEMA = Path(__file__).parent / "schema"
CURRENT = SCHEMA / "current.sql"
_NAME = re.compile(r"(\d{4})_(\w+)\.(sql|py)")


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    path: Path

    def run(self, txn: Transaction) -> None:
        if self.path.suffix == ".py":
            migrate: Callable[[Transaction], None] = runpy.run_path(str(self.path))["migrate"]
            migrate(txn)
            return
        for statement in statements(self.path.read_text("utf-8"), txn.dialect.name):
            txn.execute(txn.dialect.schema(statement))


def find(directory: Path = SCHEMA) -> list[Migration]:
    """The migrations of a directory, in their order. Raises ValueError for a number used twice."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match is None:
            continue
        version = int(match.group(1))
        if version in found:
            raise ValueError(f"{path.name} and {found[version].path.name} have the same number.")
        found[version] = Migration(version, match.group(2), path)
    return [found[version] for version in sorted(found)]


def applied(txn: Transaction) -> set[int]:
    """The numbers of the migrations that the database has had."""
    txn.execute(
        txn.dialect.schema(
            "CREATE TABLE IF NOT EXISTS schema_version ("
            "version INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied_ts BIGINT NOT NULL)"
        )
    )
    return {version for (version,) in txn.all("SELECT version FROM schema_version")}


def migrate(session: Session, migrations: Sequence[Migration]) -> list[Migration]:
    """Bring a database to the newest schema, blocking; returns the migrations that were run.

    Raises DatabaseTooNew when it had migrations that this release does not know.
    """
    done: list[Migration] = []
    while True:
        txn = session.begin()
        try:
            session.lock_schema(txn)
            next_one = _next(applied(txn), migrations)
            if next_one is not None:
                next_one.run(txn)
                txn.execute(
                    "INSERT INTO schema_version (version, name, applied_ts) VALUES (?, ?, ?)",
                    (next_one.version, next_one.name, int(time.time() * 1000)),
                )
            session.commit()
        except BaseException:
            session.rollback()
            raise
        if next_one is None:
            return done
        done.append(next_one)


def _next(had: set[int], migrations: Sequence[Migration]) -> Migration | None:
    unknown = had - {migration.version for migration in migrations}
    if unknown:
        newest = migrations[-1].version if migrations else 0
        raise DatabaseTooNew(
            f"The database has had migration {max(unknown)}, this release knows them up to"
            f" {newest}: the database was used by a newer release, and only that or a later one"
            " can open it."
        )
    return next((migration for migration in migrations if migration.version not in had), None)


def normalised(statement: str) -> str:
    """A schema statement without differences of white space."""
    return re.sub(r"\s*([(),])\s*", r"\1", re.sub(r"\s+", " ", statement)).strip()


def current_schema(migrations: Sequence[Migration]) -> str:
    """The schema that the migrations lead to, as SQL in the spelling of schema files."""
    session = SqliteSession(Path(":memory:"), writable=True, dialect=PORTABLE)
    try:
        migrate(session, migrations)
        txn = session.begin()
        rows = txn.all(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE ?"
            " AND tbl_name <> 'schema_version' AND sql NOT LIKE ?"
            " ORDER BY CASE type WHEN 'table' THEN 0 ELSE 1 END, tbl_name, name",
            # The tables that a virtual table makes for itself are named in quotes.
            ("sqlite_%", "CREATE TABLE '%"),
        )
        session.rollback()
    finally:
        session.close()
    found = [
        # Without the lines that comments left empty.
        _only_if(sql.startswith("CREATE VIRTUAL"), "sqlite") + re.sub(r"\n\s*\n", "\n", sql)
        for (sql,) in rows
    ]
    found += [_only_if(True, "postgres") + sql for sql in _of_postgres(migrations)]
    return "-- Made by `python -m storage.migrate dump`: what the migrations lead to.\n" + "".join(
        f"\n{sql};\n" for sql in found
    )


def _only_if(is_only: bool, dialect_name: str) -> str:
    return f"-- only: {dialect_name}\n" if is_only else ""


def _of_postgres(migrations: Sequence[Migration]) -> list[str]:
    """The statements that are for PostgreSQL only."""
    found = []
    for migration in migrations:
        if migration.path.suffix == ".sql":
            script = migration.path.read_text("utf-8")
            shared = statements(script, "sqlite")
            found += [sql for sql in statements(script, "postgres") if sql not in shared]
    return found


def main(arguments: Sequence[str]) -> int:
    """The command line: `dump`, or `check`, which fails when current.sql is out of date."""
    if list(arguments) not in (["dump"], ["check"]):
        print("usage: python -m storage.migrate dump|check", file=sys.stderr)
        return 2
    try:
        schema = current_schema(find())
    except sqlite3.Error as error:
        print(f"A migration fails: {error}", file=sys.stderr)
        return 1
    if arguments[0] == "dump":
        CURRENT.write_text(schema, "utf-8")
        return 0
    if not CURRENT.exists() or CURRENT.read_text("utf-8") != schema:
        print("storage/schema/current.sql is out of date: run `python -m storage.migrate dump`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
