"""Hashing and verifying passwords, in threads of their own.

New hashes are argon2id with the parameters below. Hashes imported from servers that used
bcrypt are verified, and replaced at the next login. A password that cannot be right (unknown
user, no password set) is compared with a dummy hash, so that the answer takes as long.
"""

from __future__ import annotations

import base64
import secrets
import unicodedata
from collections.abc import Callable
from typing import Literal, TypeVar

import argon2
import bcrypt
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from homeserver.core.errors import MatrixError, invalid_param

T = TypeVar("T")

MAX_PASSWORD_BYTES = 65_536
"""Longer passwords are refused; what is hashed is bounded."""

_PARAMETERS = {
    # 22 ms and 19 MiB: the least that is recommended for argon2id
    "default": argon2.Parameters(argon2.Type.ID, 19, 16, 32, 2, 19 * 1024, 1),
    "low": argon2.Parameters(argon2.Type.ID, 19, 16, 32, 1, 8, 1),
}


def _dummy_hash(parameters: argon2.Parameters) -> str:
    """A well-formed hash of no password at all, that takes as long to verify as a real one."""

    def text(size: int) -> str:
        return base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=")

    costs = f"m={parameters.memory_cost},t={parameters.time_cost},p={parameters.parallelism}"
    salt, digest = text(parameters.salt_len), text(parameters.hash_len)
    return f"$argon2id$v={parameters.version}${costs}${salt}${digest}"


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


class Passwords:
    """Hashes passwords at a `cost` with at most `concurrency` at a time.

    `pepper` is what an imported database appended to each password before bcrypt.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        *,
        cost: Literal["default", "low"] = "default",
        concurrency: int = 1,
        minimum_length: int = 1,
        pepper: str = "",
    ) -> None:
        self._reactor = reactor
        self._hasher = argon2.PasswordHasher.from_parameters(_PARAMETERS[cost])
        self._minimum_length = minimum_length
        self._pepper = pepper
        self._pool = ThreadPool(0, concurrency, "passwords")
        self._started = False
        self._closed = False
        self._dummy_hash = _dummy_hash(_PARAMETERS[cost])

    def close(self) -> None:
        """End the threads, after the hashes they are at work on."""
        self._closed = True
        if self._started:
            self._started = False
            self._pool.stop()

    def check_new(self, password: str) -> None:
        """Raises MatrixError (400) for a password that nobody may choose."""
        if len(password) < self._minimum_length:
            raise MatrixError(
                400,
                "M_WEAK_PASSWORD",
                f"A password must have at least {self._minimum_length} characters.",
            )
        if len(_encoded(password)) > MAX_PASSWORD_BYTES:
            raise invalid_param(f"A password may have at most {MAX_PASSWORD_BYTES} bytes.")

    async def hash(self, password: str) -> str:
        """The hash to store. Raises MatrixError (400) as `check_new` does."""
        self.check_new(password)
        return await self.hash_again(password)

    async def hash_again(self, password: str) -> str:
        """The hash of a password that is in use already, whatever is asked of new ones."""
        return await self._in_thread(lambda: self._hasher.hash(_encoded(password)))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether a password belongs to a stored hash; None takes as long and says no."""
        if len(_encoded(password)) > MAX_PASSWORD_BYTES:
            password = ""
            stored = None
        return await self._in_thread(lambda: self._verify(password, stored))

    def is_outdated(self, stored: str) -> bool:
        """Whether a hash was not made with today's parameters."""
        if not stored.startswith("$argon2"):
            return True
        try:
            return self._hasher.check_needs_rehash(stored)
        except argon2.exceptions.InvalidHash:
            return True

    def _verify(self, password: str, stored: str | None) -> bool:
        if stored is not None and stored.startswith("$2"):
            return self._verify_bcrypt(password, stored)
        if stored is None:
            self._matches(self._dummy_hash, _encoded(password))
            return False
        return self._matches(stored, _encoded(password))

    def _matches(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHash):
            return False

    def _verify_bcrypt(self, password: str, stored: str) -> bool:
        normalized = unicodedata.normalize("NFKC", password) + self._pepper
        try:
            # bcrypt reads 72 bytes; older versions of the library cut longer passwords silently
            return bcrypt.checkpw(_encoded(normalized)[:72], stored.encode())
        except ValueError:  # a malformed hash, or a NUL in the password
            return False

    async def _in_thread(self, fn: Callable[[], T]) -> T:
        if not self._started:
            if self._closed:
                raise RuntimeError("passwords are not hashed any more: the server stops")
            self._started = True
            self._pool.start()
        result: T = await deferToThreadPool(self._reactor, self._pool, fn)
        return result
