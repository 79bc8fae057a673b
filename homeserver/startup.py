"""What has to be there before a homeserver can be built: its data directory and signing key."""

from __future__ import annotations

import fcntl
import os
import secrets
import string
from pathlib import Path

from config import Config
from homeserver.core.signing import (
    SigningKey,
    SigningKeyFileError,
    format_signing_keys,
    generate_signing_key,
    parse_signing_keys,
)

SIGNING_KEY_FILE = "signing.key"


class CannotStart(Exception):
    """The server cannot start; the message tells the operator why and what to do."""


def prepare_data_directory(config: Config) -> None:
    """Make the data directory, and the one of an SQLite database, if absent.

    Raises CannotStart.
    """
    directories = [config.data_directory]
    url = database_url(config)
    if url.startswith("sqlite:///"):
        directories.append(Path(url.removeprefix("sqlite:///")).parent)
    for directory in directories:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CannotStart(
                f"Cannot make the data directory {directory}: {error.strerror}."
            ) from None


def database_url(config: Config) -> str:
    """The URL of the database, SQLite's with an absolute path."""
    assert config.database.url is not None  # loading filled it in
    return config.database.url


def hold_database(config: Config) -> int | None:
    """Let no second server use an SQLite database while this process lives.

    Two would not tell each other of typing, presence and news. Returns the descriptor to keep
    open; None for PostgreSQL, which several processes share. Raises CannotStart.
    """
    url = database_url(config)
    if not url.startswith("sqlite:///"):
        return None
    path = url.removeprefix("sqlite:///") + ".lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise CannotStart(f"Cannot use the lock file {path}: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CannotStart(
            f"Another server runs on this database: {path} is locked. Stop it first; several "
            "processes on one database need PostgreSQL and Redis."
        ) from None
    return descriptor


def load_signing_keys(config: Config) -> list[SigningKey]:
    """The server's signing keys, the one to sign with first; a new one is made if there is none.

    Those with `expired_ts` are retired; others after the first are published for use later.
    Raises CannotStart. Several processes may call this at the same time.
    """
    path = config.data_directory / SIGNING_KEY_FILE
    try:
        if not path.exists():
            _write_new_key(path)
        keys = parse_signing_keys(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CannotStart(f"Cannot use the signing key {path}: {error.strerror}.") from None
    except (SigningKeyFileError, UnicodeDecodeError) as error:
        raise CannotStart(f"The signing key file {path} is damaged: {error}") from None
    if not keys:
        raise CannotStart(f"The signing key file {path} is empty.")
    if keys[0].expired_ts is not None:
        raise CannotStart(
            f"The first key of {path} is marked as retired, but it is the one to sign with. "
            "Put the line of a new key before it."
        )
    return keys


def _write_new_key(path: Path) -> None:
    letters = string.ascii_letters
    version = "a_" + "".join(secrets.choice(letters) for _ in range(4))
    text = format_signing_keys([generate_signing_key(version, secrets.token_bytes(32))])
    # Written aside and linked into place: another process sees a whole key or none, and of
    # two processes the first one's key stays.
    aside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            pass
    finally:
        aside.unlink()
