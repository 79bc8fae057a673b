"""Mailboxes for logging in with a QR code, and transports of calls."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.api.client.rendezvous import MAX_BYTES
from storage.redis_rendezvous import RedisRendezvous
from storage.rendezvous import LIFETIME_MS, MemoryRendezvous, RendezvousStore
from tests.support.client import FullAnswer
from tests.support.databases import reactor, redis_url
from tests.support.server import make_server

OLD = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
NEW = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
PLAIN = {"Content-Type": "text/plain"}


class RendezvousTest(TestCase):
    """Shows XC-2."""

    timeout = 60

    async def start(self) -> None:
        self.server = await make_server(self, presence={"enabled": False})
        self.client = self.server.client

    async def old(self, method: str, path: str, body: bytes = b"", **headers: str) -> FullAnswer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.full(method, path, body=body, headers={**PLAIN, **sent})

    async def test_of_2024(self) -> None:
        """Two sides write in turn and poll with ETags; then the mailbox is closed."""
        await self.start()
        made = await self.old("POST", OLD, b"hello")
        self.assertEqual(made.status, 201)
        url = urlsplit(made.body["url"])
        self.assertEqual((url.scheme, url.netloc), ("https", "hearth.test"))
        for name in ("etag", "expires", "last-modified"):
            self.assertIn(name, made.headers)
        self.assertIn("ETag", made.headers["access-control-expose-headers"])
        path, etag = url.path, made.headers["etag"]
        found = await self.old("GET", path)
        self.assertEqual((found.status, found.body), (200, b"hello"))
        self.assertEqual(found.headers["content-type"], "text/plain")
        same = await self.old("GET", path, If_None_Match=etag)
        self.assertEqual((same.status, same.headers["etag"]), (304, etag))
        written = await self.old("PUT", path, b"answer", If_Match=etag)
        self.assertEqual(written.status, 202)
        self.assertNotEqual(written.headers["etag"], etag)
        found = await self.old("GET", path, If_None_Match=etag)
        self.assertEqual((found.status, found.body), (200, b"answer"))
        late = await self.old("PUT", path, b"late", If_Match=etag)
        self.assertEqual((late.status, late.body["errcode"]), (412, "M_CONCURRENT_WRITE"))
        self.assertEqual(late.headers["etag"], written.headers["etag"])
        self.assertEqual((await self.old("GET", path)).body, b"answer")
        self.assertEqual((await self.old("DELETE", path)).status, 204)
        for method in ("GET", "PUT", "DELETE"):
            gone = await self.old(method, path, If_Match=etag)
            self.assertEqual((gone.status, gone.body["errcode"]), (404, "M_NOT_FOUND"))

    async def test_refused_of_2024(self) -> None:
        """What is too large, of another type, or without a precondition."""
        await self.start()
        large = await self.old("POST", OLD, b"x" * (MAX_BYTES + 1))
        self.assertEqual((large.status, large.body["errcode"]), (413, "M_TOO_LARGE"))
        json = await self.client.full("POST", OLD, body=b"{}")
        self.assertEqual((json.status, json.body["errcode"]), (400, "M_INVALID_PARAM"))
        made = await self.old("POST", OLD, b"x" * MAX_BYTES)
        path = urlsplit(made.body["url"]).path
        bare = await self.old("PUT", path, b"x")
        self.assertEqual((bare.status, bare.body["errcode"]), (400, "M_MISSING_PARAM"))
        shown = await self.old("GET", path, Sec_Fetch_Mode="navigate")
        self.assertEqual((shown.status, shown.body["errcode"]), (403, "M_FORBIDDEN"))
        for name in ("x", "a" * 100, "..%2f"):
            self.assertEqual((await self.old("GET", f"{OLD}/{name}")).status, 404)

    async def test_of_2025(self) -> None:
        """The JSON form, with a repeated and with a concurrent write."""
        await self.start()
        self.assertEqual(await self.client.get(NEW), (200, {"create_available": True}))
        status, made = await self.client.post(NEW, {"data": "one"})
        self.assertEqual((status, made["expires_in_ms"]), (200, LIFETIME_MS))
        path, first = f"{NEW}/{made['id']}", made["sequence_token"]
        status, found = await self.client.get(path)
        self.assertEqual((found["data"], found["sequence_token"]), ("one", first))
        self.assertLessEqual(found["expires_in_ms"], LIFETIME_MS)
        body = {"sequence_token": first, "data": "two"}
        status, second = await self.client.put(path, body)
        self.assertEqual(status, 200)
        self.assertEqual(await self.client.put(path, body), (200, second))
        status, late = await self.client.put(path, {**body, "data": "three"})
        self.assertEqual((status, late["errcode"]), (409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE"))
        status, large = await self.client.put(path, {**body, "data": "x" * (MAX_BYTES + 1)})
        self.assertEqual((status, large["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual((await self.client.full("GET", f"{OLD}/{made['id']}")).status, 404)
        self.assertEqual(await self.client.delete(path), (200, {}))
        self.assertEqual((await self.client.get(path)).status, 404)

    async def test_transports(self) -> None:
        """The operator's LiveKit services, at the endpoint and in the well-known file."""
        url = "https://livekit.hearth.test"
        server = await make_server(self, matrix_rtc={"livekit_service_urls": [url]})
        alice = await server.register("alice")
        expected: list[Any] = [{"type": "livekit", "livekit_service_url": url}]
        path = "/_matrix/client/unstable/org.matrix.msc4143/rtc/transports"
        self.assertEqual(await alice.ok("GET", path), {"rtc_transports": expected})
        self.assertEqual((await server.client.get(path)).status, 401)
        _, found = await server.client.get("/.well-known/matrix/client")
        self.assertEqual(found["org.matrix.msc4143.rtc_foci"], expected)
        await self.start()
        _, found = await self.client.get("/.well-known/matrix/client")
        self.assertEqual(list(found), ["m.homeserver"])


class StoreTest(TestCase):
    """Both stores behave alike."""

    timeout = 60

    async def behaves(self, one: RendezvousStore, other: RendezvousStore) -> None:
        first = await one.create("a", b"\x00one")
        self.assertEqual(await other.get("a"), first)
        second = await other.replace("a", first.token, b"two")
        assert second is not None
        self.assertEqual((second.data, second.expires_ms), (b"two", first.expires_ms))
        self.assertNotEqual(second.token, first.token)
        self.assertEqual(await one.replace("a", first.token, b"three"), second)
        self.assertIsNone(await one.replace("none", first.token, b"three"))
        self.assertIsNone(await one.get("none"))
        for name in ("b", "c", "d"):
            await one.create(name, b"")
        # Room for three: the oldest made way.
        self.assertIsNone(await one.get("a"))
        self.assertTrue(await other.delete("b"))
        self.assertFalse(await other.delete("b"))
        self.assertIsNotNone(await other.get("c"))

    async def test_memory(self) -> None:
        """One process."""
        clock = Clock()
        store = MemoryRendezvous(clock, 3)
        await self.behaves(store, store)
        clock.advance(LIFETIME_MS / 1000)
        self.assertIsNone(await store.get("c"))

    async def test_redis(self) -> None:
        """Two processes."""
        stores = [RedisRendezvous(redis_url(), reactor, "test:rv:", 3) for _ in range(2)]
        try:
            await self.behaves(*stores)
            left = await stores[0]._client.command("PTTL", "test:rv:rendezvous:c")
            self.assertGreater(left, 0)
            self.assertLessEqual(left, LIFETIME_MS)
        finally:
            for store in stores:
                await store.close()
