"""Tokens, their cache, refreshing and ending sessions."""

from __future__ import annotations

from typing import Any

from structlog.testing import capture_logs
from twisted.trial.unittest import TestCase

from homeserver.cache import Caches
from homeserver.core.errors import MatrixError
from homeserver.core.ids import UserID
from homeserver.users.sessions import Grant, NewSession
from homeserver.web.request import Request, Requester
from storage import devices, tokens
from storage.database import Database
from storage.errors import DatabaseUnavailable
from tests.support.databases import open_test_database
from tests.support.users import UserServer, make_user_server, same_database

ALICE = UserID("@alice:hearth.test")
REFRESHING = NewSession("PHONE", refresh=True)


class SessionsTest(TestCase):
    async def server(self, **options: Any) -> UserServer:
        server = await make_user_server(self, **options)
        await server.accounts.create(ALICE, "wonderland")
        return server

    async def holder(self, server: UserServer, token: str) -> Requester:
        return await server.sessions.authenticate(token, Request("GET", "/", address()))

    async def refused(self, server: UserServer, token: str) -> MatrixError:
        with self.assertRaises(MatrixError) as caught:
            await self.holder(server, token)
        self.assertEqual(caught.exception.status, 401)
        self.assertEqual(caught.exception.errcode, "M_UNKNOWN_TOKEN")
        error: MatrixError = caught.exception
        return error

    async def test_token_finds_requester(self) -> None:
        server = await self.server()
        grant = await server.sessions.begin(ALICE, NewSession("PHONE"))
        self.assertEqual(await self.holder(server, grant.access_token), Requester(ALICE, "PHONE"))

    async def test_tokens_are_stored_hashed(self) -> None:
        server = await self.server()
        grant = await server.sessions.begin(ALICE, REFRESHING)
        assert grant.refresh_token is not None

        def everything(txn: Any) -> str:
            rows = txn.all("SELECT * FROM access_tokens") + txn.all("SELECT * FROM refresh_tokens")
            return repr(rows)

        stored = await server.db.read(everything)
        self.assertNotIn(grant.access_token, stored)
        self.assertNotIn(grant.refresh_token, stored)

    async def test_second_request_reads_nothing(self) -> None:
        server = await self.server()
        grant = await server.sessions.begin(ALICE, NewSession())
        await self.holder(server, grant.access_token)
        reads = count_transactions(self, server.db)
        for _ in range(10):
            await self.holder(server, grant.access_token)
        self.assertEqual(reads, [])

    async def test_changes_reach_other_processes(self) -> None:
        server = await self.server()
        other = same_database(self, await second_database(self, server), clock=server.clock)
        grant = await server.sessions.begin(ALICE, NewSession())
        await self.holder(other, grant.access_token)
        await server.accounts.set_admin(ALICE, True)
        await other.db.look()
        self.assertTrue((await self.holder(other, grant.access_token)).is_admin)
        await server.sessions.end_all(ALICE)
        await other.db.look()
        await self.refused(other, grant.access_token)

    async def test_flags_of_the_account(self) -> None:
        server = await self.server()
        token = (await server.sessions.begin(ALICE, NewSession())).access_token
        await self.holder(server, token)
        await server.accounts.set_locked(ALICE, True)
        await server.accounts.set_suspended(ALICE, True)
        requester = await self.holder(server, token)
        self.assertTrue(requester.is_locked)
        self.assertTrue(requester.is_suspended)

    async def test_same_device_again(self) -> None:
        """Shows LOG-4."""
        server = await self.server()
        first = await server.sessions.begin(ALICE, REFRESHING)
        assert first.refresh_token is not None
        await self.holder(server, first.access_token)
        second = await server.sessions.begin(ALICE, NewSession("PHONE", "New name"))
        await self.refused(server, first.access_token)
        with self.assertRaises(MatrixError):
            await server.sessions.refresh(first.refresh_token)
        await self.holder(server, second.access_token)
        row = await server.db.read(devices.get_device, ALICE, "PHONE")
        assert row is not None
        self.assertIsNone(row.display_name, "the name of a known device stays")

    async def test_device_id_of_a_cross_signing_key(self) -> None:
        """Shows LOG-4."""
        server = await self.server()
        server.hooks.device_id_reserved.append(lambda txn, user, device: device == "KEY")
        with self.assertRaises(MatrixError) as caught:
            await server.sessions.begin(ALICE, NewSession("KEY"))
        self.assertEqual((caught.exception.status, caught.exception.errcode), (403, "M_FORBIDDEN"))
        await server.sessions.begin(ALICE, NewSession("OTHER"))

    async def test_hooks_of_devices(self) -> None:
        """Shows LOG-5: what belongs to a device goes with it."""
        server = await self.server()
        called: list[tuple[str, str, str]] = []
        server.hooks.device_deleted.append(lambda txn, *ids: called.append(("deleted", *ids)))
        server.hooks.device_changed.append(lambda txn, *ids: called.append(("changed", *ids)))
        await server.sessions.begin(ALICE, NewSession("PHONE"))
        await server.sessions.begin(ALICE, NewSession("PHONE"))
        self.assertEqual(called, [("changed", ALICE, "PHONE")])
        called.clear()
        await server.sessions.end(ALICE, "PHONE")
        self.assertEqual(called, [("deleted", ALICE, "PHONE"), ("changed", ALICE, "PHONE")])

    # Refreshing

    async def begin(self, server: UserServer) -> tuple[Grant, str]:
        grant = await server.sessions.begin(ALICE, REFRESHING)
        assert grant.refresh_token is not None
        return grant, grant.refresh_token

    async def refresh(self, server: UserServer, token: str) -> tuple[Grant, str]:
        grant = await server.sessions.refresh(token)
        assert grant.refresh_token is not None
        return grant, grant.refresh_token

    async def test_only_for_clients_that_know_it(self) -> None:
        """Shows LOG-9."""
        server = await self.server()
        grant = await server.sessions.begin(ALICE, NewSession())
        self.assertIsNone(grant.refresh_token)
        self.assertIsNone(grant.expires_in_ms)
        server.clock.advance(10 * 365 * 86400)
        await self.holder(server, grant.access_token)

    async def test_using_the_new_access_token_ends_the_old_pair(self) -> None:
        """Shows LOG-9."""
        server = await self.server()
        old, old_refresh = await self.begin(server)
        await self.holder(server, old.access_token)
        new, _ = await self.refresh(server, old_refresh)
        self.assertEqual(new.device_id, old.device_id)
        await self.holder(server, old.access_token)
        await self.holder(server, new.access_token)
        await self.refused(server, old.access_token)
        with self.assertRaises(MatrixError) as caught:
            await server.sessions.refresh(old_refresh)
        self.assertEqual(caught.exception.errcode, "M_UNKNOWN_TOKEN")
        await self.holder(server, new.access_token)

    async def test_lost_answer(self) -> None:
        """Shows LOG-9: the old token works until one of the new ones is used."""
        server = await self.server()
        _, refresh_token = await self.begin(server)
        lost, lost_refresh = await self.refresh(server, refresh_token)
        again, again_refresh = await self.refresh(server, refresh_token)
        await self.refused(server, lost.access_token)
        with self.assertRaises(MatrixError):
            await server.sessions.refresh(lost_refresh)
        await self.holder(server, again.access_token)
        await self.refresh(server, again_refresh)

    async def test_using_the_new_refresh_token_ends_the_old_one(self) -> None:
        """Shows LOG-9."""
        server = await self.server()
        _, first = await self.begin(server)
        _, second = await self.refresh(server, first)
        await self.refresh(server, second)
        with self.assertRaises(MatrixError):
            await server.sessions.refresh(first)

    async def test_refresh_is_no_access(self) -> None:
        server = await self.server()
        grant, refresh_token = await self.begin(server)
        await self.refused(server, refresh_token)
        with self.assertRaises(MatrixError):
            await server.sessions.refresh(grant.access_token)

    async def test_expired_access_token(self) -> None:
        """Shows LOG-10."""
        server = await self.server(sessions={"access_lifetime_ms": 60_000})
        grant, refresh_token = await self.begin(server)
        self.assertEqual(grant.expires_in_ms, 60_000)
        await self.holder(server, grant.access_token)
        server.clock.advance(59)
        await self.holder(server, grant.access_token)
        server.clock.advance(1)
        error = await self.refused(server, grant.access_token)
        self.assertIs(error.extra["soft_logout"], True)
        new, _ = await self.refresh(server, refresh_token)
        await self.holder(server, new.access_token)

    async def test_ended_session_is_no_soft_logout(self) -> None:
        """Shows LOG-10."""
        server = await self.server()
        grant, refresh_token = await self.begin(server)
        await self.holder(server, grant.access_token)
        await server.sessions.end(ALICE, grant.device_id)
        error = await self.refused(server, grant.access_token)
        self.assertNotIn("soft_logout", error.extra)
        with self.assertRaises(MatrixError) as caught:
            await server.sessions.refresh(refresh_token)
        self.assertNotIn("soft_logout", caught.exception.extra)

    async def test_expired_refresh_token(self) -> None:
        """Shows LOG-10."""
        server = await self.server(sessions={"refresh_lifetime_ms": 1000})
        _, refresh_token = await self.begin(server)
        server.clock.advance(1)
        with self.assertRaises(MatrixError) as caught:
            await server.sessions.refresh(refresh_token)
        self.assertIs(caught.exception.extra["soft_logout"], True)

    async def test_expiry_without_soft_logout(self) -> None:
        server = await self.server(sessions={"access_lifetime_ms": 1, "soft_logout": False})
        grant, _ = await self.begin(server)
        server.clock.advance(1)
        self.assertEqual((await self.refused(server, grant.access_token)).extra, {})

    async def test_cache_forgets_the_longest_unused(self) -> None:
        server = await self.server()
        caches = Caches(30_000)
        (cache,) = server.sessions.caches
        caches.adopt(cache)
        grants = [await server.sessions.begin(ALICE, NewSession(str(n))) for n in range(12)]
        for grant in grants:
            await self.holder(server, grant.access_token)
        self.assertTrue(4 <= len(cache) <= 8, len(cache))
        self.assertEqual(server.sessions._hashes_of[ALICE], set(cache))
        for grant in grants:
            await self.holder(server, grant.access_token)
        # Others may need the space: what is known of the user's tokens stays right.
        caches.resize(10_000)
        await self.holder(server, grants[0].access_token)
        self.assertEqual(server.sessions._hashes_of.get(ALICE, set()), set(cache))
        await server.sessions.end(ALICE, "0")
        await self.refused(server, grants[0].access_token)


class DeviceActivityTest(TestCase):
    async def test_written_in_batches(self) -> None:
        server = await make_user_server(self)
        await server.accounts.create(ALICE, None)
        grants = [await server.sessions.begin(ALICE, NewSession(str(n))) for n in range(3)]
        server.clock.advance(100)
        for grant in grants:
            await server.sessions.authenticate(
                grant.access_token, Request("GET", "/", address(), b"", "192.0.2.7")
            )
        written = count_transactions(self, server.db)
        await server.activity.flush()
        self.assertEqual(written, ["record_seen"])
        rows = await server.db.read(devices.get_devices, ALICE)
        self.assertEqual({row.last_seen_ip for row in rows}, {"192.0.2.7"})
        self.assertEqual({row.last_seen_user_agent for row in rows}, {"A client"})
        self.assertEqual({row.last_seen_ts for row in rows}, {1_700_000_100_000})

    async def test_a_database_that_is_away(self) -> None:
        """What was noted is written when it is back, and the log says so in a line."""
        server = await make_user_server(self)
        activity, write = server.activity, server.db.write

        async def is_away(*args: object) -> None:
            activity.seen(ALICE, "TABLET", 99_000, "192.0.2.9", "")
            raise DatabaseUnavailable("The database was away for 30 seconds")

        activity.seen(ALICE, "PHONE", 1000, "192.0.2.7", "")
        activity.seen(ALICE, "TABLET", 1000, "192.0.2.7", "")
        self.patch(server.db, "write", is_away)
        activity.start()
        with capture_logs() as lines:
            server.clock.advance(60)
        self.assertEqual([line["log_level"] for line in lines], ["warning"])
        self.assertNotIn("exc_info", lines[0])
        self.patch(server.db, "write", write)
        phone, tablet = (activity.pending(ALICE, name) for name in ("PHONE", "TABLET"))
        assert phone is not None and tablet is not None
        self.assertEqual((phone.ts, tablet.ts), (1000, 99_000))
        await activity.stop()
        self.assertIsNone(activity.pending(ALICE, "PHONE"))

    async def test_not_more_often_than_each_minute(self) -> None:
        server = await make_user_server(self)
        activity = server.activity
        activity.seen(ALICE, "PHONE", 1000, "192.0.2.7", "")
        await activity.flush()
        activity.seen(ALICE, "PHONE", 2000, "192.0.2.7", "")
        self.assertIsNone(activity.pending(ALICE, "PHONE"))
        activity.seen(ALICE, "PHONE", 3000, "192.0.2.8", "")
        self.assertIsNotNone(activity.pending(ALICE, "PHONE"))
        await activity.flush()
        activity.seen(ALICE, "PHONE", 63_000, "192.0.2.8", "")
        self.assertIsNotNone(activity.pending(ALICE, "PHONE"))

    async def test_loop_and_stop(self) -> None:
        server = await make_user_server(self)
        await server.accounts.create(ALICE, None)
        await server.sessions.begin(ALICE, NewSession("PHONE"))
        server.activity.start()
        server.activity.seen(ALICE, "PHONE", 1_700_000_900_000, "192.0.2.9", "")
        await server.activity.stop()
        row = await server.db.read(devices.get_device, ALICE, "PHONE")
        assert row is not None
        self.assertEqual(row.last_seen_ip, "192.0.2.9")
        self.assertEqual(server.clock.getDelayedCalls(), [])


class TokenRowsTest(TestCase):
    async def test_deactivated_account(self) -> None:
        server = await make_user_server(self)
        await server.accounts.create(ALICE, None)
        await server.db.write(tokens.insert_access_token, b"hash", ALICE, "PHONE", now_ms=1)
        self.assertIsNotNone(await server.db.read(tokens.get_access_token, b"hash"))
        await server.accounts.deactivate(ALICE)
        self.assertIsNone(await server.db.read(tokens.get_access_token, b"hash"))


def address() -> dict[bytes, bytes]:
    return {b"user-agent": b"A client"}


def count_transactions(test: TestCase, db: Database) -> list[str]:
    """The names of the functions that run in transactions from now on."""
    names: list[str] = []
    for kind in ("read", "write"):
        real = getattr(db, kind)

        async def counted(fn: Any, *args: Any, real: Any = real, **kwargs: Any) -> Any:
            names.append(fn.__name__)
            return await real(fn, *args, **kwargs)

        test.patch(db, kind, counted)
    return names


async def second_database(test: TestCase, server: UserServer) -> Database:
    """The same database as another process sees it."""
    return await open_test_database(test, url=server.url)
