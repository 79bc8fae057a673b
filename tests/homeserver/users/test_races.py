"""Things that happen to one account at the same time, on each database."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.users.sessions import Grant, NewSession
from homeserver.web.request import Request
from storage import registration_tokens, users
from storage.transaction import Transaction
from tests.support.databases import DatabaseTestCase, on_each_database
from tests.support.users import UserServer, same_database

ALICE = UserID("@alice:hearth.test")


async def at_once(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """The results of all calls, errors of the API among them."""

    async def caught(call: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await call
        except MatrixError as error:
            return error

    running = [Deferred.fromCoroutine(caught(call)) for call in calls]
    results: list[Any] = await gatherResults(running, consumeErrors=True)
    return results


@on_each_database
class RacesTest(DatabaseTestCase):
    server: UserServer

    async def prepare(self) -> None:
        self.server = same_database(self, await self.open())
        await self.server.accounts.create(ALICE, "wonderland")

    async def works(self, grant: Grant) -> bool:
        try:
            await self.server.sessions.authenticate(grant.access_token, Request("GET", "/"))
        except MatrixError:
            return False
        return True

    async def test_refresh(self) -> None:
        """Shows LOG-9: of simultaneous refreshes with one token one pair is left."""
        sessions = self.server.sessions
        grant = await sessions.begin(ALICE, NewSession("PHONE", refresh=True))
        assert grant.refresh_token is not None
        grants = await at_once(*(sessions.refresh(grant.refresh_token) for _ in range(5)))
        self.assertEqual(sum([await self.works(each) for each in grants]), 1)

    async def test_same_device(self) -> None:
        """Shows LOG-4."""
        logins = [self.server.sessions.begin(ALICE, NewSession("PHONE")) for _ in range(5)]
        grants = await at_once(*logins)
        self.assertEqual(sum([await self.works(each) for each in grants]), 1)

    async def test_login_and_logout_of_one_device(self) -> None:
        """Shows LOG-5: no token outlives its device."""
        sessions = self.server.sessions
        await sessions.begin(ALICE, NewSession("PHONE"))
        for _ in range(5):
            grant, _ = await at_once(
                sessions.begin(ALICE, NewSession("PHONE")), sessions.end(ALICE, "PHONE")
            )
            exists = await self.server.db.read(has_device, "PHONE")
            self.assertEqual(await self.works(grant), exists)

    async def test_refresh_and_logout(self) -> None:
        """Shows LOG-5."""
        sessions = self.server.sessions
        for _ in range(5):
            grant = await sessions.begin(ALICE, NewSession("PHONE", refresh=True))
            assert grant.refresh_token is not None
            refreshed, _ = await at_once(
                sessions.refresh(grant.refresh_token), sessions.end(ALICE, "PHONE")
            )
            if isinstance(refreshed, Grant):
                self.assertFalse(await self.works(refreshed))

    async def test_login_with_the_old_password(self) -> None:
        """Shows LOG-6: a login that was proved with the old password comes too late."""
        proved = await self.server.login.check_password(ALICE, "wonderland")
        await self.server.accounts.set_password(ALICE, "looking-glass")
        (late,) = await at_once(self.server.sessions.begin(ALICE, NewSession(), proved))
        self.assertEqual(late.errcode, "M_FORBIDDEN")

    async def test_login_to_a_closed_account(self) -> None:
        """Shows ACC-1."""
        proved = await self.server.login.check_password(ALICE, "wonderland")
        await self.server.accounts.deactivate(ALICE)
        (late,) = await at_once(self.server.sessions.begin(ALICE, NewSession(), proved))
        self.assertEqual(late.errcode, "M_USER_DEACTIVATED")

    async def test_login_token(self) -> None:
        """Shows LOG-7."""
        token = await self.server.db.write(self.server.login.create_token_in, ALICE)
        results = await at_once(*(self.server.login.redeem_token(token.token) for _ in range(5)))
        self.assertEqual(sum(isinstance(each, users.UserRow) for each in results), 1)

    async def test_registration_token(self) -> None:
        """Shows UIA-11."""
        await self.server.registration_tokens.create("welcome", uses_allowed=2)
        write = self.server.db.write
        used = await at_once(*(write(registration_tokens.use, "welcome", 1) for _ in range(5)))
        self.assertEqual(sum(used), 2)

    async def test_same_name(self) -> None:
        """Shows UIA-7."""
        bob = UserID("@bob:hearth.test")
        results = await at_once(*(self.server.accounts.create(bob, "builder") for _ in range(4)))
        errors = [each.errcode for each in results if each is not None]
        self.assertEqual(errors, ["M_USER_IN_USE"] * 3)


def has_device(txn: Transaction, device_id: str) -> bool:
    sql = "SELECT 1 FROM devices WHERE user_id = ? AND device_id = ?"
    return txn.one(sql, (ALICE, device_id)) is not None
