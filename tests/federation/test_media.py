"""Files of other servers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from federation.client import media as calls
from homeserver.media import remote_files
from homeserver.media.remote import AT_ONCE, AT_ONCE_OF_ONE
from storage import leases
from tests.homeserver.media.pictures import opened, picture
from tests.support.federation import make_federation
from tests.support.media import UPLOAD, download, stored_files, try_upload, upload
from tests.support.network import eventually
from tests.support.peer import make_peer
from tests.support.peer_http import Received, Reply
from tests.support.web import WebServer

THUMBNAIL = "/_matrix/client/v1/media/thumbnail"
LEGACY = "/_matrix/media/v3/download"


def multipart(
    data: bytes | None, boundary: str = "b", metadata: bytes = b"{}", **headers: str
) -> Reply:
    """A file as servers give it."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    body = (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode()
        + metadata
        + f"\r\n--{boundary}\r\n{lines}\r\n".encode()
        + (data or b"")
        + f"\r\n--{boundary}--\r\n".encode()
    )
    return Reply(body, headers={"content-type": f"multipart/mixed; boundary={boundary}"})


def error(status: int, errcode: str) -> Reply:
    return Reply({"errcode": errcode, "error": "no"}, status)


class TwoServersTests(TestCase):
    timeout = 60

    async def test_file(self) -> None:
        """Fetched once, with its type and name. Shows MED-4, MED-5, MED-3."""
        a, b = await make_federation(self)
        alice, bob = await a.register("alice"), await b.register("bob")
        data = bytes(range(256)) * 4000
        name = await upload(alice, data, "image/png", "☕ a.png")
        answers = [Deferred.fromCoroutine(download(bob, name)) for _ in range(4)]
        for each in answers:
            answer = await each
            self.assertEqual((answer.status, answer.body), (200, data))
            self.assertEqual(answer.headers["content-type"], "image/png")
            self.assertIn(
                "filename*=utf-8''%E2%98%95%20a.png", answer.headers["content-disposition"]
            )
        self.assertEqual(len(stored_files(b)), 1)
        b.network.cut(b.name, a.name)
        self.assertEqual((await download(bob, name)).body, data)
        legacy = await download(bob, name, LEGACY)
        self.assertEqual(legacy.status, 404)
        b.network.heal_all()

    async def test_thumbnail(self) -> None:
        """Made here of the whole; of what is too large, by the other server. Shows MED-4,
        MED-8."""
        a, b = await make_federation(self, each=[{}, {"media": {"max_remote_size": 30_000}}])
        alice, bob = await a.register("alice"), await b.register("bob")
        small = await upload(alice, picture(400, 300))
        noise = picture(900, 600) + b"x" * 40_000
        large = await upload(alice, noise)
        for name, is_kept in ((small, True), (large, False)):
            answer = await download(bob, name, THUMBNAIL, width=96, height=96)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(opened(answer.body).size[0], 96)
            whole = await download(bob, name)
            self.assertEqual(whole.status, 200 if is_kept else 502)
        self.assertEqual(whole.body["errcode"], "M_TOO_LARGE")
        again = await download(bob, large, THUMBNAIL, width=96, height=96)
        self.assertEqual(again.status, 200)

    async def test_empty_and_unknown(self) -> None:
        """Shows MED-4."""
        a, b = await make_federation(self)
        alice, bob = await a.register("alice"), await b.register("bob")
        self.assertEqual((await download(bob, await upload(alice, b""))).body, b"")
        answer = await download(bob, f"{a.name}/unknown")
        self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
        answer = await download(bob, f"{a.name}/unknown", LEGACY, allow_remote=False)
        self.assertEqual(answer.status, 404)

    async def test_not_yet(self) -> None:
        """A file that is to come is waited for at its server. Shows MED-9, MED-4."""
        a, b = await make_federation(self)
        alice, bob = await a.register("alice"), await b.register("bob")
        name = (await alice.ok("POST", "/_matrix/media/v1/create"))["content_uri"][6:]
        answer = await download(bob, name, timeout_ms=0)
        self.assertEqual((answer.status, answer.body["errcode"]), (504, "M_NOT_YET_UPLOADED"))
        waiting = Deferred.fromCoroutine(download(bob, name, timeout_ms=50_000))
        await try_upload(alice, b"here", path=f"{UPLOAD}/{name}", method="PUT")
        self.assertEqual((await waiting).body, b"here")


class ServedTests(TestCase):
    async def test_only_own(self) -> None:
        """To signed requests, and only this server's own. Shows MED-5."""
        federation = await make_federation(self, 1)
        (a,) = federation
        peer = await make_peer(self, federation)
        alice = await a.register("alice")
        name = await upload(alice, b"<p>", "text/html", "x.html")
        media_id = name.partition("/")[2]
        status, body = await peer.get(a.name, "/v1/media/download/{}", media_id)
        self.assertEqual(status, 200)
        head, _, rest = body.partition(b"\r\n\r\n{}\r\n")
        boundary = head.partition(b"\r\n")[0]
        self.assertTrue(boundary.startswith(b"--"))
        self.assertIn(b"Content-Type: application/json", head)
        self.assertEqual(
            rest,
            boundary + b"\r\nContent-Type: text/html\r\nContent-Disposition: attachment;"
            b' filename="x.html"\r\n\r\n<p>\r\n' + boundary + b"--\r\n",
        )
        status, body = await peer.get(a.name, "/v1/media/download/{}", "unknown")
        self.assertEqual((status, body["errcode"]), (404, "M_NOT_FOUND"))
        status, body = await peer.get(a.name, "/v1/media/thumbnail/{}", media_id, width=1, height=1)
        self.assertEqual((status, body["errcode"]), (400, "M_UNKNOWN"))
        path = f"/_matrix/federation/v1/media/download/{media_id}"
        self.assertEqual((await peer.request("GET", a.name, path, signed=False))[0], 401)
        picture_id = (await upload(alice, picture())).partition("/")[2]
        status, body = await peer.get(
            a.name, "/v1/media/thumbnail/{}", picture_id, width=96, height=96, method="crop"
        )
        self.assertEqual(status, 200)
        self.assertIn(b"image/png", body)


class HostileServerTests(TestCase):
    """A server that gives what it should not, or not at all."""

    timeout = 60

    async def start(self, **media: Any) -> None:
        settings = {"max_remote_size": 1_000_000, **media}
        self.federation = await make_federation(
            self, 1, media=settings, outgoing_http=WebServer.trust()
        )
        (self.a,) = self.federation
        self.peer = await make_peer(self, self.federation)
        self.alice = await self.a.register("alice")
        self.numbers = itertools.count(1)

    async def get(self, reply: Any, **others: Any) -> Any:
        """The answer to a download of a new file that the peer gives like this."""
        self.peer.on["media"] = lambda request: reply
        for name, each in others.items():
            self.peer.on[name] = lambda request, given=each: given  # type: ignore[misc]
        self.name = f"{self.peer.name}/m{next(self.numbers)}"
        return await download(self.alice, self.name)

    async def test_forms(self) -> None:
        """Multipart as others write it. Shows MED-4."""
        await self.start()
        long = b"x" * 200_000
        tricky = b"\r\n--b\r\n--\r\n-b--" * 3
        for reply, data, content_type, shown in (
            (multipart(b"x"), b"x", "application/octet-stream", "attachment"),
            (multipart(long, Content_Type="text/css"), long, "text/css", "inline"),
            (multipart(tricky, "bx"), tricky, "application/octet-stream", "attachment"),
            (multipart(b"", content_type="image/png"), b"", "image/png", "inline"),
            (
                multipart(b"x", Content_Disposition='attachment; filename="../a\\"b\\u202e.png"'),
                b"x",
                "application/octet-stream",
                'attachment; filename=".._a\\"bu202e.png"',
            ),
            (
                multipart(b"x", Content_Type="text/html\x00; \x7f"),
                b"x",
                "application/octet-stream",
                "attachment",
            ),
        ):
            answer = await self.get(reply)
            self.assertEqual((answer.status, answer.body), (200, data))
            self.assertEqual(answer.headers["content-type"], content_type)
            self.assertEqual(answer.headers["content-disposition"], shown)
        quoted = multipart(b"x", "a b")
        quoted.headers["content-type"] = 'multipart/mixed; charset=x; boundary="a b"'
        self.assertEqual((await self.get(quoted)).body, b"x")
        in_pieces = multipart(b"y" * 1000)
        whole: Any = in_pieces.body
        in_pieces.body = iter([whole[n : n + 7] for n in range(0, len(whole), 7)])
        self.assertEqual((await self.get(in_pieces)).body, b"y" * 1000)

    async def test_malformed(self) -> None:
        """Nothing of what breaks off or is no multipart is kept. Shows MED-4."""
        await self.start()
        good: Any = multipart(b"x" * 500).body
        kind = {"content-type": "multipart/mixed; boundary=b"}
        for reply in (
            Reply(b"x" * 500, headers={"content-type": "image/png"}),
            Reply(b"x" * 500, headers={"content-type": "multipart/mixed"}),
            Reply(b"x" * 50_000, headers=kind),
            Reply(good[:-20], headers=kind),
            Reply(b"--b--\r\n", headers=kind),
            Reply(b"--b\r\n\r\n{}\r\n--b--\r\n", headers=kind),
            Reply(b"--b\r\nA: " + b"x" * 50_000, headers=kind),
            multipart(b"x", metadata=b"x" * 100_000),
            Reply(b"", headers=kind),
        ):
            answer = await self.get(reply)
            self.assertEqual((answer.status, answer.body["errcode"]), (502, "M_UNKNOWN"))
        await eventually(lambda: not stored_files(self.a))

    async def test_endless(self) -> None:
        """A server that sends without end, or says that it will. Shows MED-4."""
        await self.start()
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            yield b"--b\r\n\r\n{}\r\n--b\r\n\r\n"
            while True:
                sent += 65536
                yield b"x" * 65536

        kind = {"content-type": "multipart/mixed; boundary=b"}
        answer = await self.get(Reply(endless(), headers=kind))
        self.assertEqual((answer.status, answer.body["errcode"]), (502, "M_TOO_LARGE"))
        self.assertLess(sent, 20_000_000)
        await eventually(lambda: not stored_files(self.a))
        # It is not asked again at once.
        asked = len(self.peer.received("media"))
        self.assertEqual((await download(self.alice, self.name)).status, 502)
        self.assertEqual(len(self.peer.received("media")), asked)
        answer = await self.get(multipart(b"x" * 1_000_001))
        self.assertEqual(answer.body["errcode"], "M_TOO_LARGE")

    async def test_slow(self) -> None:
        """A server that does not answer, or does not go on, is given up. Shows MED-4."""
        await self.start()
        self.patch(calls, "STALLED_S", 0.2)
        self.patch(remote_files, "STALLED_S", 0.2)
        kind = {"content-type": "multipart/mixed; boundary=b"}

        def stalling() -> Iterator[bytes]:
            yield b"--b\r\n\r\n{}\r\n--b\r\n\r\n"
            yield b"x" * 600_000
            stopped.append(True)
            yield b"y"

        stopped: list[bool] = []
        for reply in (Reply(hang=True), Reply(stalling(), headers=kind, pause=0.1)):
            reply.pause = 0.0 if reply.hang else 0.4
            name = f"{self.peer.name}/m{next(self.numbers)}"
            self.peer.on["media"] = lambda request, given=reply: given  # type: ignore[misc]
            answer = await download(self.alice, name, timeout_ms=0)
            self.assertEqual((answer.status, answer.body["errcode"]), (502, "M_UNKNOWN"))
        await eventually(lambda: not stored_files(self.a))

    async def test_unauthenticated(self) -> None:
        """Nobody has this server fetch what they would not be given. Shows MED-3."""
        await self.start()
        self.peer.on["media"] = lambda request: multipart(b"x")
        answer = await download(self.alice, f"{self.peer.name}/m1", LEGACY)
        self.assertEqual(answer.status, 404)
        self.assertEqual(self.peer.received("media"), [])

    async def test_refused(self) -> None:
        """What other servers say, and what clients are told; remembered for a while. Shows
        MED-4."""
        await self.start()
        for reply, status, errcode, is_remembered in (
            (error(404, "M_NOT_FOUND"), 404, "M_NOT_FOUND", True),
            (error(504, "M_NOT_YET_UPLOADED"), 504, "M_NOT_YET_UPLOADED", False),
            (error(502, "M_TOO_LARGE"), 502, "M_TOO_LARGE", True),
            (error(429, "M_LIMIT_EXCEEDED"), 502, "M_UNKNOWN", True),
            (error(500, "M_UNKNOWN"), 502, "M_UNKNOWN", True),
            (error(401, "M_UNAUTHORIZED"), 502, "M_UNKNOWN", True),
        ):
            answer = await self.get(reply)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode))
            asked = len(self.peer.received("media"))
            again = await download(self.alice, self.name)
            self.assertEqual(again.status, status)
            self.assertEqual(len(self.peer.received("media")) == asked, is_remembered)

    async def test_odd_patience(self) -> None:
        """However long or short a client wants to wait. Shows MED-4."""
        await self.start()
        self.peer.on["media"] = lambda request: error(502, "M_TOO_LARGE")
        self.peer.on["thumbnail"] = lambda request: error(404, "M_NOT_FOUND")
        for number, wait_ms in enumerate((-(10**9), 10**15)):
            name = f"{self.peer.name}/m{number}"
            size: dict[str, Any] = {"width": 32, "height": 32, "timeout_ms": wait_ms}
            self.assertEqual((await download(self.alice, name, **size)).status, 502)
            self.assertEqual((await download(self.alice, name, THUMBNAIL, **size)).status, 404)
        for kind in ("media", "thumbnail"):
            told = [received.query["timeout_ms"] for received in self.peer.received(kind)]
            self.assertEqual(told, [["0"], ["60000"]], kind)

    async def test_one_server_holds_up_no_other(self) -> None:
        """However many files of a server that does not go on are asked for."""
        await self.start()
        other = await make_peer(self, self.federation)
        waiting: list[Deferred[None]] = []

        async def slowly(request: Received) -> Reply:
            waiting.append(Deferred())
            await waiting[-1]
            return multipart(b"x")

        self.peer.on["media"] = slowly
        other.on["media"] = lambda request: multipart(b"y")
        asking = [
            Deferred.fromCoroutine(download(self.alice, f"{self.peer.name}/m{number}"))
            for number in range(AT_ONCE + 2)
        ]
        await eventually(lambda: len(self.peer.received("media")) == AT_ONCE_OF_ONE)
        self.assertEqual((await download(self.alice, f"{other.name}/m")).body, b"y")
        self.assertEqual(len(waiting), AT_ONCE_OF_ONE)
        self.peer.on["media"] = lambda request: multipart(b"x")
        for each in waiting:
            each.callback(None)
        for asked in asking:
            self.assertEqual((await asked).body, b"x")

    async def test_before_authenticated_media(self) -> None:
        """Servers of old give it at the old path, or say where it is. Shows MED-4."""
        await self.start()
        old = Reply(b"old", headers={"content-type": "text/css"})
        answer = await self.get(error(404, "M_UNRECOGNIZED"), legacy_media=old)
        self.assertEqual((answer.body, answer.headers["content-type"]), (b"old", "text/css"))
        asked = self.peer.received("legacy_media")[-1]
        self.assertEqual(asked.query["allow_remote"], ["false"])
        self.assertIsNone(asked.origin)
        web = WebServer(self, (200, b"from the web"))
        moved = Reply(b"", 307, headers={"location": f"{web.url}/file"})
        answer = await self.get(error(404, "M_UNRECOGNIZED"), legacy_media=moved)
        self.assertEqual(answer.body, b"from the web")
        answer = await self.get(
            error(404, "M_UNRECOGNIZED"), legacy_media=error(404, "M_NOT_FOUND")
        )
        self.assertEqual(answer.status, 404)

    async def test_location(self) -> None:
        """A file elsewhere; what the server says of it goes first. Shows MED-4."""
        await self.start()
        web = WebServer(self, (200, b"from the web"))
        answer = await self.get(
            multipart(None, Location=f"{web.url}/f?a=b", Content_Type="image/png")
        )
        self.assertEqual((answer.status, answer.body), (200, b"from the web"))
        self.assertEqual(answer.headers["content-type"], "image/png")
        self.assertEqual(web.asked[0].path, "/f?a=b")
        for location in ("http://localhost/x", "file:///etc/passwd", "//x", "", "https://[::1"):
            answer = await self.get(multipart(None, Location=location))
            self.assertEqual(answer.status, 502, location)
        web.answers = [(404, b"")]
        self.assertEqual((await self.get(multipart(None, Location=web.url))).status, 404)
        web.answers = [(200, b"x" * 1_200_000)]
        answer = await self.get(multipart(None, Location=web.url))
        self.assertEqual(answer.body["errcode"], "M_TOO_LARGE")

    async def test_location_inside(self) -> None:
        """A server cannot have this one ask its own network. Shows MED-4, KEY-5."""
        federation = await make_federation(self, 1)
        (a,) = federation
        peer, web = await make_peer(self, federation), WebServer(self, (200, b"secret"))
        alice = await a.register("alice")
        peer.on["media"] = lambda request: multipart(None, Location=web.url)
        answer = await download(alice, f"{peer.name}/m1")
        self.assertEqual(answer.status, 502)
        self.assertEqual(web.asked, [])

    async def test_many_ask_at_once(self) -> None:
        """One request to the other server for all of them, also when some leave."""
        await self.start()
        go: Deferred[None] = Deferred()

        async def slowly(request: Received) -> Reply:
            await go
            return multipart(b"x")

        self.peer.on["media"] = slowly
        name = f"{self.peer.name}/shared"
        asking = [Deferred.fromCoroutine(download(self.alice, name)) for _ in range(5)]
        await eventually(lambda: self.peer.received("media"))
        asking[0].addErrback(lambda _: None)
        asking[0].cancel()
        go.callback(None)
        for each in asking[1:]:
            self.assertEqual((await each).body, b"x")
        self.assertEqual(len(self.peer.received("media")), 1)

    async def test_two_processes(self) -> None:
        """Two processes that are asked for the same file fetch it once."""
        await self.start()
        db = self.a.homeserver.db
        name = f"media:{self.peer.name}/m1"
        # Another process is at it.
        now = int(self.a.homeserver.reactor.seconds() * 1000)
        await db.write(leases.claim, [name], "other", now, 60_000)
        self.peer.on["media"] = lambda request: multipart(b"x")
        asking = Deferred.fromCoroutine(download(self.alice, f"{self.peer.name}/m1"))
        await eventually(lambda: name in self.a.homeserver.feed._listeners)
        self.assertEqual(self.peer.received("media"), [])
        await db.write(leases.release, [name], "other")
        self.a.homeserver.feed.publish(name)
        self.assertEqual((await asking).body, b"x")

    async def test_lying_thumbnail(self) -> None:
        """What another server says is a thumbnail is looked at first."""
        await self.start()
        page = b"<script>alert(1)</script>"
        self.peer.on["thumbnail"] = lambda request: multipart(page, Content_Type="image/png")
        self.peer.on["media"] = lambda request: error(502, "M_TOO_LARGE")
        answer = await download(self.alice, f"{self.peer.name}/m1", THUMBNAIL, width=96, height=96)
        self.assertEqual((answer.status, answer.body["errcode"]), (400, "M_UNKNOWN"))
        self.peer.on["thumbnail"] = lambda request: multipart(
            picture(2000, 1000), Content_Type="text/html"
        )
        answer = await download(self.alice, f"{self.peer.name}/m1", THUMBNAIL, width=96, height=96)
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "image/png"))
        self.assertEqual(opened(answer.body).size, (96, 48))
        await eventually(lambda: len(stored_files(self.a)) == 1)
