"""Sending and getting files of one's own server."""

from __future__ import annotations

from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.support.media import DOWNLOAD, UPLOAD, download, stored_files, try_upload, upload
from tests.support.network import eventually
from tests.support.server import make_server

LEGACY = "/_matrix/media/v3/download"


class UploadTests(TestCase):
    async def test_upload_and_download(self) -> None:
        """Type, name and bytes come back; under the names of all paths. Shows MED-1, MED-2,
        MED-3."""
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        data = bytes(range(256)) * 3000
        name = await upload(alice, data, "image/png", "a picture.png")
        origin, _, media_id = name.partition("/")
        self.assertEqual(origin, "hearth.test")
        self.assertRegex(media_id, "^[A-Za-z0-9_-]{20,}$")
        for path in (DOWNLOAD, "/_matrix/client/unstable/org.matrix.msc3916/media/download"):
            answer = await download(bob, name, path)
            self.assertEqual((answer.status, answer.body), (200, data), path)
            self.assertEqual(answer.headers["content-type"], "image/png")
            self.assertEqual(answer.headers["content-length"], str(len(data)))
            self.assertEqual(
                answer.headers["content-disposition"], 'inline; filename="a picture.png"'
            )
        answer = await download(bob, f"{name}/other.png")
        self.assertEqual(answer.headers["content-disposition"], 'inline; filename="other.png"')
        for version in ("r0", "v1", "v3"):
            path = f"/_matrix/media/{version}"
            sent = await try_upload(alice, b"x", path=f"{path}/upload")
            self.assertEqual(sent.status, 200)
            self.assertEqual((await alice.ok("GET", f"{path}/config")), {"m.upload.size": 50 << 20})
        self.assertEqual(
            await alice.ok("GET", "/_matrix/client/v1/media/config"), {"m.upload.size": 50 << 20}
        )

    async def test_empty_and_nameless(self) -> None:
        """A file may be empty, and without type and name."""
        server = await make_server(self)
        alice = await server.register()
        answer = await download(alice, await upload(alice, b"", None))
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.headers["content-type"], "application/octet-stream")
        self.assertEqual(answer.headers["content-disposition"], "attachment")

    async def test_too_large(self) -> None:
        """By what is announced, and by what comes; nothing is left of it. Shows MED-1."""
        server = await make_server(self, media={"max_upload_size": 1000})
        alice = await server.register()
        self.assertEqual((await try_upload(alice, b"x" * 1000)).status, 200)
        kept = len(stored_files(server))
        for headers in ({}, {"Content-Length": "1001"}):
            answer = await alice.client.full("POST", UPLOAD, body=b"x" * 1001, headers=headers)
            self.assertEqual((answer.status, answer.body["errcode"]), (413, "M_TOO_LARGE"))
        await eventually(lambda: len(stored_files(server)) == kept)

    async def test_quota(self) -> None:
        """What a user may have, and what all may. Shows MED-1."""
        server = await make_server(self, media={"space": {"per_user": 1000, "local": 1500}})
        alice, bob = await server.register(), await server.register()
        await upload(alice, b"a" * 900)
        answer = await try_upload(alice, b"b" * 101)
        self.assertEqual((answer.status, answer.body["errcode"]), (403, "M_FORBIDDEN"))
        await upload(alice, b"b" * 100)
        self.assertEqual((await try_upload(bob, b"c" * 501)).status, 403)
        await upload(bob, b"c" * 500)

    async def test_no_user(self) -> None:
        """Guests and strangers send nothing; guests may read. Shows MED-3."""
        server = await make_server(self)
        alice = await server.register()
        name = await upload(alice, b"x")
        status, answer = await server.client.post("/_matrix/client/v3/register?kind=guest", {})
        self.assertEqual(status, 200)
        guest = server.client.with_token(answer["access_token"])
        self.assertEqual((await guest.full("POST", UPLOAD, body=b"x")).status, 403)
        self.assertEqual((await guest.get(f"{DOWNLOAD}/{name}")).status, 200)
        self.assertEqual((await server.client.full("POST", UPLOAD, body=b"x")).status, 401)
        self.assertEqual((await server.client.get(f"{DOWNLOAD}/{name}")).status, 401)

    async def test_same_bytes_are_kept_once(self) -> None:
        server = await make_server(self)
        alice, bob = await server.register(), await server.register()
        first = await upload(alice, b"same" * 1000, "text/plain")
        second = await upload(bob, b"same" * 1000, "image/png")
        self.assertNotEqual(first, second)
        await eventually(lambda: len(stored_files(server)) == 1)
        self.assertEqual((await download(bob, first)).headers["content-type"][:10], "text/plain")
        self.assertEqual((await download(bob, second)).headers["content-type"], "image/png")

    async def test_simultaneous_uploads_of_the_same(self) -> None:
        """Of two that put the same into the store at once, one file stays."""
        server = await make_server(self)
        alice = await server.register()
        both = [Deferred.fromCoroutine(upload(alice, b"same" * 50_000)) for _ in range(5)]
        names = [await each for each in both]
        self.assertEqual(len(set(names)), 5)
        await eventually(lambda: len(stored_files(server)) == 1)
        for name in names:
            self.assertEqual((await download(alice, name)).body, b"same" * 50_000)


class HostileNameTests(TestCase):
    async def test_names_of_files(self) -> None:
        """Both forms of a name; none that leads elsewhere or looks like another. Shows MED-6."""
        server = await make_server(self)
        alice = await server.register()
        for sent, expected in (
            ("ascii.png", 'inline; filename="ascii.png"'),
            ('quo"te;s.png', 'inline; filename="quo\\"te;s.png"'),
            ("☕.png", "inline; filename=\"_.png\"; filename*=utf-8''%E2%98%95.png"),
            ("../../etc/passwd", 'inline; filename=".._.._etc_passwd"'),
            ("a\r\nSet-Cookie: x=y\r\n.png", 'inline; filename="aSet-Cookie: x=y.png"'),
            ("gnp.\u202eexe.png", 'inline; filename="gnp.exe.png"'),
            ("..", "inline"),
            ("\x01\x7f", "inline"),
        ):
            name = await upload(alice, b"x", "image/png", sent)
            answer = await download(alice, name)
            self.assertEqual(answer.headers["content-disposition"], expected, sent)
            if "/" not in sent and sent != "..":
                answer = await download(alice, f"{name}/{quote(sent)}")
                self.assertEqual(answer.headers["content-disposition"], expected, sent)
        name = await upload(alice, b"x", "image/png", "ü" * 400 + ".jpeg")
        shown = (await download(alice, name)).headers["content-disposition"]
        self.assertTrue(shown.endswith(".jpeg"))
        self.assertLess(len(shown), 1200)

    async def test_names_of_media(self) -> None:
        """No path leads out of the store. Shows MED-2."""
        server = await make_server(self)
        alice = await server.register()
        for name, expected in (
            ("hearth.test/..%2f..%2fsigning.key", 404),
            ("hearth.test/%2e%2e", 404),
            ("hearth.test/a%20b", 404),
            ("hearth.test/" + "a" * 300, 404),
            ("hearth.test/unknown", 404),
            ("bad_server_name/abc", 400),
            ("..%2f..%2f/abc", 400),
            ("hearth.test:99999/abc", 400),
        ):
            for path in (DOWNLOAD, LEGACY):
                answer = await download(alice, name, path)
                self.assertEqual(answer.status, expected, name)

    async def test_harmful_types(self) -> None:
        """What browsers could run is never shown in place, whatever a client says of it; and
        what is said is no header of its own. Shows MED-6, MED-7."""
        server = await make_server(self)
        alice = await server.register()
        page = b"<script>alert(1)</script>"
        for sent, expected, is_inline in (
            ("text/html", "text/html", False),
            ("image/svg+xml", "image/svg+xml", False),
            ("application/xhtml+xml", "application/xhtml+xml", False),
            ("text/html, image/png", "application/octet-stream", False),
            ("image/png\r\nX-Evil: 1", "application/octet-stream", False),
            ("x" * 400 + "/y", "application/octet-stream", False),
            ("image/pngé", "application/octet-stream", False),
            ("IMAGE/PNG", "IMAGE/PNG", True),
            ("image/png; a=b", "image/png; a=b", True),
            ("text/plain", "text/plain; charset=utf-8", True),
            ("video/mp4", "video/mp4", True),
        ):
            answer = await download(alice, await upload(alice, page, sent))
            headers = answer.headers
            self.assertEqual(headers["content-type"], expected)
            kind = "inline" if is_inline else "attachment"
            self.assertEqual(headers["content-disposition"], kind, sent)
            self.assertTrue(headers["content-security-policy"].startswith("sandbox;"))
            self.assertIn("default-src 'none'", headers["content-security-policy"])
            self.assertEqual(headers["cross-origin-resource-policy"], "cross-origin")
            self.assertEqual(headers["x-content-type-options"], "nosniff")


class DeliveryTests(TestCase):
    async def test_ranges(self) -> None:
        """Shows MED-7."""
        server = await make_server(self)
        alice = await server.register()
        data = bytes(index % 251 for index in range(300_000))
        name = await upload(alice, data)
        for header, start, end in (
            ("bytes=0-0", 0, 1),
            ("bytes=100-", 100, 300_000),
            ("bytes=-5", 299_995, 300_000),
            ("bytes=299999-400000", 299_999, 300_000),
            ("bytes=131072-262143", 131_072, 262_144),
        ):
            answer = await download(alice, name, headers={"Range": header})
            self.assertEqual((answer.status, answer.body), (206, data[start:end]), header)
            self.assertEqual(answer.headers["content-range"], f"bytes {start}-{end - 1}/300000")
            self.assertEqual(answer.headers["content-length"], str(end - start))
        for header in ("bytes=5-4", "bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b"):
            answer = await download(alice, name, headers={"Range": header})
            self.assertEqual((answer.status, len(answer.body)), (200, 300_000), header)
        for header in ("bytes=300000-", "bytes=-0"):
            answer = await download(alice, name, headers={"Range": header})
            self.assertEqual(answer.status, 416, header)
            self.assertEqual(answer.headers["content-range"], "bytes */300000")
        etag = answer.headers.get("etag") or (await download(alice, name)).headers["etag"]
        for condition, status in ((etag, 206), ('"other"', 200)):
            headers = {"Range": "bytes=0-9", "If-Range": condition}
            self.assertEqual((await download(alice, name, headers=headers)).status, status)

    async def test_caching(self) -> None:
        """Shows MED-7."""
        server = await make_server(self)
        alice = await server.register()
        answer = await download(alice, name := await upload(alice, b"x"))
        self.assertIn("private", answer.headers["cache-control"])
        self.assertIn("immutable", answer.headers["cache-control"])
        known = {"If-None-Match": f'"x", W/{answer.headers["etag"]}'}
        answer = await download(alice, name, headers=known)
        self.assertEqual((answer.status, answer.body), (304, b""))

    async def test_frozen(self) -> None:
        """Without an access token only what came while that was allowed. Shows MED-3."""
        server = await make_server(self)
        alice = await server.register()
        frozen = await upload(alice, b"new")
        for version in ("r0", "v1", "v3"):
            status, answer = await server.client.get(f"/_matrix/media/{version}/download/{frozen}")
            self.assertEqual((status, answer["errcode"]), (404, "M_NOT_FOUND"))
        open_server = await make_server(self, media={"unauthenticated": True})
        bob = await open_server.register()
        free = await upload(bob, b"old", "text/plain", "x.txt")
        for path in (LEGACY, DOWNLOAD):
            answer = await download(bob, free, path)
            self.assertEqual((answer.status, answer.body), (200, b"old"))
            self.assertIn("public", answer.headers["cache-control"])
        path = f"{LEGACY}/{free}/y.txt?allow_remote=false&allow_redirect=true&timeout_ms=1"
        full = await open_server.client.full("GET", path)
        self.assertEqual(full.headers["content-disposition"], 'inline; filename="y.txt"')

    async def test_lost_file(self) -> None:
        """A row without its file is a file that is not there."""
        server = await make_server(self)
        alice = await server.register()
        name = await upload(alice, b"x")
        for path in stored_files(server):
            path.unlink()
        self.assertEqual((await download(alice, name)).status, 404)


class ReservedTests(TestCase):
    async def test_reserved(self) -> None:
        """Shows MED-9."""
        server = await make_server(self, media={"reserved_per_user": 2})
        alice, bob = await server.register(), await server.register()
        answer = await alice.ok("POST", "/_matrix/media/v1/create")
        name = answer["content_uri"][6:]
        self.assertGreater(answer["unused_expires_at"], 10**12)
        waiting = await download(alice, name, timeout_ms=0)
        self.assertEqual((waiting.status, waiting.body["errcode"]), (504, "M_NOT_YET_UPLOADED"))
        path = f"{UPLOAD}/{name}"
        foreign = await try_upload(bob, b"x", path=path, method="PUT")
        self.assertEqual((foreign.status, foreign.body["errcode"]), (403, "M_FORBIDDEN"))
        filled = await try_upload(alice, b"late", "text/css", "f.css", path=path, method="PUT")
        self.assertEqual((filled.status, filled.body), (200, {}))
        again = await try_upload(alice, b"x", path=path, method="PUT")
        self.assertEqual((again.status, again.body["errcode"]), (409, "M_CANNOT_OVERWRITE_MEDIA"))
        got = await download(bob, name)
        self.assertEqual((got.body, got.headers["content-type"]), (b"late", "text/css"))
        ordinary = await upload(alice, b"x")
        again = await try_upload(alice, b"x", path=f"{UPLOAD}/{ordinary}", method="PUT")
        self.assertEqual(again.status, 409)
        for unknown in ("hearth.test/unknown", "other.test/abc"):
            lost = await try_upload(alice, b"x", path=f"{UPLOAD}/{unknown}", method="PUT")
            self.assertEqual((lost.status, lost.body["errcode"]), (404, "M_NOT_FOUND"))
        for _ in range(2):
            await alice.ok("POST", "/_matrix/media/v1/create")
        status, refused = await alice.call("POST", "/_matrix/media/v1/create")
        self.assertEqual((status, refused["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        await bob.ok("POST", "/_matrix/media/v1/create")

    async def test_expired(self) -> None:
        """Shows MED-9."""
        server = await make_server(self, media={"upload_within": "0ms", "reserved_per_user": 1})
        alice = await server.register()
        for _ in range(2):  # what has expired does not count
            answer = await alice.ok("POST", "/_matrix/media/v1/create")
        name = answer["content_uri"][6:]
        late = await try_upload(alice, b"x", path=f"{UPLOAD}/{name}", method="PUT")
        self.assertEqual((late.status, late.body["errcode"]), (404, "M_NOT_FOUND"))
        self.assertEqual((await download(alice, name)).status, 404)

    async def test_waiting(self) -> None:
        """A download waits for its file. Shows MED-9."""
        server = await make_server(self)
        alice = await server.register()
        name = (await alice.ok("POST", "/_matrix/media/v1/create"))["content_uri"][6:]
        waiting = Deferred.fromCoroutine(download(alice, name, timeout_ms=60_000))
        filled = await try_upload(alice, b"here", path=f"{UPLOAD}/{name}", method="PUT")
        self.assertEqual(filled.status, 200)
        self.assertEqual((await waiting).body, b"here")

    async def test_only_one_of_two(self) -> None:
        """Two that fill the same name at once: one does, and of the other nothing stays."""
        server = await make_server(self)
        alice = await server.register()
        name = (await alice.ok("POST", "/_matrix/media/v1/create"))["content_uri"][6:]
        both = [
            Deferred.fromCoroutine(
                try_upload(alice, data * 1000, path=f"{UPLOAD}/{name}", method="PUT")
            )
            for data in (b"one", b"two")
        ]
        answers = [await each for each in both]
        self.assertEqual(sorted(each.status for each in answers), [200, 409])
        winner = (b"one", b"two")[[each.status for each in answers].index(200)] * 1000
        self.assertEqual((await download(alice, name)).body, winner)
        await eventually(lambda: len(stored_files(server)) == 1)


class TrafficTests(TestCase):
    async def test_body_limit_is_that_of_the_configuration(self) -> None:
        """The transport refuses what is announced as too large before it arrives."""
        server = await make_server(self, media={"max_upload_size": 5000})
        request = server.client.build("POST", UPLOAD)
        plan = server.homeserver.router.body_plan(request)
        self.assertEqual((plan.max_bytes, plan.stream), (5000, True))
        other = server.client.build("POST", "/_matrix/client/v3/login")
        self.assertFalse(server.homeserver.router.body_plan(other).stream)
