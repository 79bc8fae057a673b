"""Previews of pages, from a server of the web to the client."""

from __future__ import annotations

import io
import json
import struct
import zlib
from typing import Any

from PIL import Image
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from tests.support.pages import Pages, Sent
from tests.support.server import make_server

PATH = "/_matrix/client/v1/media/preview_url"


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    """A picture."""
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, kind)
    return out.getvalue()


def several_pictures() -> bytes:
    """A JPEG file with a second picture, as cameras of phones make it (MPO)."""
    out = io.BytesIO()
    one, other = Image.new("RGB", (40, 30), (200, 30, 30)), Image.new("RGB", (40, 30))
    one.save(out, "MPO", save_all=True, append_images=[other])
    return out.getvalue()


def bomb() -> bytes:
    """A small PNG that says that it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


class PreviewTest(TestCase):
    timeout = 60

    async def start(self, **section: Any) -> None:
        self.pages = Pages(self)
        local = {"enabled": True, "allowed_ip_ranges": ["127.0.0.0/8", "::1/128"]}
        self.server = await make_server(
            self, url_previews={**local, **section}, outgoing_http=Pages.trust()
        )
        self.alice = await self.server.register("alice")

    async def ask(self, url: str, **query: Any) -> Any:
        return await self.alice.call("GET", PATH, query={"url": url, **query})

    async def test_a_page_with_a_picture(self) -> None:
        """Shows MED-10."""
        await self.start()
        self.pages.put(
            "/page",
            '<meta property="og:title" content="Title"><meta property="og:image" content="/p.png">'
            '<meta property="og:image:width" content="9999"><p>text',
        )
        self.pages.put("/p.png", picture(), "text/html")
        status, found = await self.ask(f"{self.pages.url}/page#part")
        self.assertEqual(status, 200, found)
        uri = found.pop("og:image")
        self.assertEqual(
            found,
            {
                "og:title": "Title",
                "og:description": "text",
                "og:image:type": "image/png",
                "og:image:width": 40,
                "og:image:height": 30,
                "matrix:image:size": len(picture()),
            },
        )
        path = uri.removeprefix("mxc://")
        answer = await self.alice.client.full("GET", f"/_matrix/client/v1/media/download/{path}")
        self.assertEqual((answer.status, answer.body), (200, picture()))
        self.assertEqual(answer.headers["content-type"], "image/png")

    async def test_remembered(self) -> None:
        """A page is asked once for a while, also by all who ask at once. Shows MED-10."""
        await self.start()
        self.pages.put("/", "<title>One</title>")
        url = f"{self.pages.url}/"
        asked = [Deferred.fromCoroutine(self.ask(url)) for _ in range(5)]
        for status, found in await gatherResults(asked):
            self.assertEqual((status, found), (200, {"og:title": "One"}))
        self.pages.put("/", "<title>Two</title>")
        for ts in (1, 2**53 - 1):
            self.assertEqual(await self.ask(url, ts=ts), (200, {"og:title": "One"}))
        for path in ("/_matrix/media/v3/preview_url", "/_matrix/media/r0/preview_url"):
            _, found = await self.alice.call("GET", path, query={"url": url})
            self.assertEqual(found, {"og:title": "One"})
        self.assertEqual(len(self.pages.asked), 1)
        await self.server.restart()
        self.assertEqual(await self.ask(url), (200, {"og:title": "One"}))
        self.assertEqual(len(self.pages.asked), 1)

    async def test_what_pages_are_told(self) -> None:
        await self.start(languages=["de", "en;q=0.5"])
        self.pages.put("/%C3%A4%20b", "<title>ok</title>")
        status, _ = await self.ask(f" {self.pages.url}/ä%20b?q=ü&x=%41#frag")
        self.assertEqual(status, 200)
        [asked] = self.pages.asked
        self.assertEqual(asked.path, "/%C3%A4%20b?q=%C3%BC&x=%41")
        self.assertEqual(asked.headers["accept-language"], "de, en;q=0.5")
        self.assertNotIn("cookie", asked.headers)
        self.assertNotIn("authorization", asked.headers)

    async def test_pictures_and_other_files(self) -> None:
        """Shows MED-10."""
        await self.start()
        self.pages.put("/a%20b.jpg", picture("JPEG"), "image/jpeg")
        _, found = await self.ask(f"{self.pages.url}/a%20b.jpg")
        self.assertEqual((found["og:title"], found["og:image:type"]), ("a b.jpg", "image/jpeg"))
        self.pages.put("/several.jpg", several_pictures(), "image/jpeg")
        status, found = await self.ask(f"{self.pages.url}/several.jpg")
        self.assertEqual((status, found.get("og:image:type")), (200, "image/jpeg"))
        for path, body, kind in (
            ("/x.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
            ("/x.png", bomb(), "image/png"),
            ("/y.png", picture()[:20], "image/png"),
            ("/x.pdf", b"%PDF-1.4", "application/pdf"),
            ("/nothing", b"", "text/html"),
            ("/odd", b"<title>no</title>", "text/plain"),
        ):
            self.pages.put(path, body, kind)
            self.assertEqual(await self.ask(self.pages.url + path), (200, {}), path)

    async def test_redirects(self) -> None:
        """Each place that a redirect leads to is judged. Shows MED-10."""
        await self.start(denied_hosts=["*.forbidden.example", "localhost"])
        self.pages.host = "127.0.0.1"
        self.pages.put("/end", "<title>End</title>")
        self.pages.put("/go", Sent(302, {"Location": "../end"}))
        self.assertEqual(await self.ask(f"{self.pages.url}/go"), (200, {"og:title": "End"}))
        self.pages.put("/loop", Sent(301, {"Location": "/loop"}))
        port = self.pages.port
        for number, target in enumerate(
            (
                "/loop",
                f"http://localhost:{port}/end",
                "http://10.0.0.1/",
                "http://[::ffff:10.0.0.1]/",
                "http://169.254.169.254/latest/meta-data",
                "http://0/",
                "http://2130706434/",
                "file:///etc/passwd",
                "gopher://127.0.0.1/",
                f"http://user:pw@127.0.0.1:{port}/end",
                "http://[",
                "http://x.forbidden.example/",
            )
        ):
            self.pages.put(f"/to{number}", Sent(302, {"Location": target}))
            before = len(self.pages.asked)
            status, answer = await self.ask(f"{self.pages.url}/to{number}")
            self.assertEqual((status, answer["errcode"]), (502, "M_UNKNOWN"), target)
            self.assertNotIn("/end", [each.path for each in self.pages.asked[before:]])

    async def test_private_addresses(self) -> None:
        """No address of the server's own network is asked. Shows MED-10."""
        await self.start(allowed_ip_ranges=[])
        self.pages.put("/", "<title>secret</title>")
        for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
            status, answer = await self.ask(f"http://{host}:{self.pages.port}/")
            self.assertEqual((status, answer["errcode"]), (502, "M_UNKNOWN"), host)
        self.assertEqual(self.pages.asked, [])

    async def test_bad_urls(self) -> None:
        await self.start(denied_hosts=["*.intern"])
        for url in (
            "",
            "x",
            "ftp://example.org/",
            "http://",
            "http:///path",
            "http://a b/",
            "http://a\r\nX: y/",
            "http://example.org:99999/",
            "http://user@example.org/",
            "http://[::1",
            "javascript:alert(1)",
            "http://" + "a" * 3000 + ".org/",
            "http://exa\\mple.org/",
            "http://\u2603\u200b\u0378/",
        ):
            status, answer = await self.ask(url)
            self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"), url)
            self.assertIn("url", answer["error"])
        for host in ("wiki.Intern", "wiki.intern.", "wiki.intern\u3002", "\uff57iki.intern."):
            status, answer = await self.ask(f"http://{host}/")
            self.assertEqual((status, answer["errcode"]), (403, "M_FORBIDDEN"), host)
        status, answer = await self.alice.call("GET", PATH)
        self.assertEqual((status, answer["errcode"]), (400, "M_MISSING_PARAM"))
        status, answer = await self.ask("http://example.org/", ts="soon")
        self.assertEqual((status, answer["errcode"]), (400, "M_INVALID_PARAM"))
        status, answer = await self.server.client.get(PATH, query={"url": "http://a.org/"})
        self.assertEqual((status, answer["errcode"]), (401, "M_MISSING_TOKEN"))

    async def test_pages_that_never_end(self) -> None:
        """What is too long is cut off, what is too slow is given up. Shows MED-10."""
        await self.start(max_size="4K", timeout="1s")
        self.pages.put("/long", b"<title>long</title>" + b"x " * 5_000_000)
        status, found = await self.ask(f"{self.pages.url}/long")
        self.assertEqual((status, found["og:title"]), (200, "long"))
        self.pages.put("/p.png", picture("PNG", (900, 900)) + b"\0" * 5000, "image/png")
        self.assertEqual(await self.ask(f"{self.pages.url}/p.png"), (200, {}))
        self.pages.put("/hangs", None)
        status, answer = await self.ask(f"{self.pages.url}/hangs")
        self.assertEqual((status, answer["errcode"]), (502, "M_UNKNOWN"))
        asked = len(self.pages.asked)
        self.assertEqual((await self.ask(f"{self.pages.url}/hangs")).status, 502)
        self.assertEqual(len(self.pages.asked), asked)

    async def test_errors_of_pages(self) -> None:
        await self.start()
        for number, code in enumerate((404, 500, 204, 302)):
            self.pages.put(f"/e{number}", Sent(code, {}, b"<title>no</title>"))
            status, answer = await self.ask(f"{self.pages.url}/e{number}")
            self.assertEqual((status, answer["errcode"]), (502, "M_UNKNOWN"), code)

    async def test_embedded(self) -> None:
        """Shows MED-10."""
        await self.start()
        link = '<link rel="alternate" type="application/json+oembed" href="/oembed">'
        self.pages.put("/video", link)
        self.pages.put(
            "/oembed",
            json.dumps(
                {
                    "version": "1.0",
                    "type": "video",
                    "title": "Film",
                    "html": "<script>",
                    "thumbnail_url": f"{self.pages.url}/thumb",
                }
            ),
            "application/json",
        )
        self.pages.put("/thumb", picture("WEBP"), "image/webp")
        _, found = await self.ask(f"{self.pages.url}/video")
        self.assertEqual((found["og:title"], found["og:image:type"]), ("Film", "image/webp"))
        self.assertNotIn("script", str(found))
        self.pages.put("/other", link.replace("/oembed", "/rubbish"))
        self.pages.put("/rubbish", b"[" * 100_000, "application/json")
        self.assertEqual(await self.ask(f"{self.pages.url}/other"), (200, {}))

    async def test_tls(self) -> None:
        await self.start()
        secure = Pages(self, tls=True)
        secure.put("/", "<title>secure</title>")
        self.assertEqual(await self.ask(f"{secure.url}/"), (200, {"og:title": "secure"}))
        status, _ = await self.ask(f"{secure.url.replace('localhost', '127.0.0.1')}/")
        self.assertEqual(status, 502)

    async def test_off(self) -> None:
        await self.start(enabled=False)
        status, answer = await self.ask(f"{self.pages.url}/")
        self.assertEqual((status, answer["errcode"]), (404, "M_UNRECOGNIZED"))
        self.assertEqual(self.pages.asked, [])
