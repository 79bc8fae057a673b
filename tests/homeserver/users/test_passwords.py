"""Hashing and verifying passwords."""

from __future__ import annotations

from typing import Any

import bcrypt
from twisted.internet.defer import DeferredList, ensureDeferred
from twisted.trial.unittest import TestCase

from homeserver.core.errors import MatrixError
from homeserver.users.passwords import MAX_PASSWORD_BYTES, Passwords
from tests.support.databases import reactor


class PasswordsTest(TestCase):
    def make(self, **options: Any) -> Passwords:
        passwords = Passwords(reactor, **{"cost": "low", **options})
        self.addCleanup(passwords.close)
        return passwords

    async def test_right_and_wrong(self) -> None:
        passwords = self.make()
        stored = await passwords.hash("wonderland")
        self.assertTrue(stored.startswith("$argon2id$"))
        self.assertTrue(await passwords.verify("wonderland", stored))
        self.assertFalse(await passwords.verify("Wonderland", stored))

    async def test_same_password_has_different_hashes(self) -> None:
        passwords = self.make()
        self.assertNotEqual(await passwords.hash("x"), await passwords.hash("x"))

    async def test_default_cost(self) -> None:
        stored = await self.make(cost="default").hash("wonderland")
        self.assertIn("$m=19456,t=2,p=1$", stored)

    async def test_any_unicode_and_length(self) -> None:
        """Shows UIA-10."""
        passwords = self.make()
        for password in ("пароль", "🔑" * 5000, "a\u0301", "\u200b", "x" * MAX_PASSWORD_BYTES):
            stored = await passwords.hash(password)
            self.assertTrue(await passwords.verify(password, stored))
            self.assertFalse(await passwords.verify(password + "y", stored))

    async def test_not_normalised(self) -> None:
        passwords = self.make()
        self.assertFalse(await passwords.verify("á", await passwords.hash("a\u0301")))

    async def test_too_long(self) -> None:
        passwords = self.make()
        too_long = "x" * (MAX_PASSWORD_BYTES + 1)
        with self.assertRaises(MatrixError) as caught:
            await passwords.hash(too_long)
        self.assertEqual(caught.exception.errcode, "M_INVALID_PARAM")
        self.assertFalse(await passwords.verify(too_long, await passwords.hash("x")))

    async def test_too_short(self) -> None:
        """Shows UIA-10."""
        passwords = self.make(minimum_length=8)
        with self.assertRaises(MatrixError) as caught:
            await passwords.hash("sevenxx")
        self.assertEqual(caught.exception.errcode, "M_WEAK_PASSWORD")
        await passwords.hash("eightxxx")

    async def test_unknown_user_takes_the_same_work(self) -> None:
        """Shows LOG-3: without a hash the same function runs on one of the same parameters."""
        passwords = self.make()
        verified: list[str] = []
        real = passwords._hasher.verify

        class Recorder:
            def verify(self, stored: str, password: bytes) -> bool:
                verified.append(stored.rpartition("$")[0].rpartition("$")[0])
                return real(stored, password)

        passwords._hasher = Recorder()  # type: ignore[assignment]
        self.assertFalse(await passwords.verify("guess", None))
        passwords_of_a_user = await self.make().hash("right")
        self.assertFalse(await passwords.verify("guess", passwords_of_a_user))
        self.assertEqual(verified[0], verified[1])
        self.assertEqual(len(verified), 2)

    async def test_imported_bcrypt(self) -> None:
        passwords = self.make(pepper="salt")
        stored = bcrypt.hashpw("Åse".encode() + b"salt", bcrypt.gensalt(4)).decode()
        self.assertTrue(await passwords.verify("A\u030ase", stored))
        self.assertFalse(await passwords.verify("Ase", stored))
        self.assertTrue(passwords.is_outdated(stored))
        self.assertFalse(passwords.is_outdated(await passwords.hash("Åse")))

    async def test_bcrypt_of_a_long_password(self) -> None:
        passwords = self.make()
        stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
        self.assertTrue(await passwords.verify("x" * 100, stored))

    async def test_malformed_hashes_are_never_right(self) -> None:
        passwords = self.make()
        for stored in ("", "x", "$argon2id$", "$2b$", "$2b$12$short", "$argon2id$v=19$m=1,t=1"):
            self.assertFalse(await passwords.verify("x", stored))
            self.assertTrue(passwords.is_outdated(stored))

    async def test_many_at_once(self) -> None:
        passwords = self.make()
        hashing = [ensureDeferred(passwords.hash(str(n))) for n in range(20)]
        results = await DeferredList(hashing)
        self.assertTrue(all(success for success, _ in results))
        self.assertLessEqual(len(passwords._pool.threads), 1)

    async def test_close_before_use(self) -> None:
        passwords = self.make()
        passwords.close()
        with self.assertRaises(RuntimeError):
            await passwords.verify("x", None)
