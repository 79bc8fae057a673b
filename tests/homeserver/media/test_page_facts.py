"""What is made of pages, honest and hostile."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from homeserver.media.page_facts import MAX_TEXT, embed_link, embedded, facts_of

URL = "https://example.org/dir/page"


def facts(html: str | bytes, charset: str | None = None) -> dict[str, Any]:
    return facts_of(html if isinstance(html, bytes) else html.encode(), charset, URL)


class PageTest(SynchronousTestCase):
    def test_open_graph(self) -> None:
        """Shows MED-10."""
        page = """<!doctype html><html><head><title>Other</title>
            <meta property="og:title" content=" A &amp; B\n c ">
            <meta property="og:description" content="&lt;b&gt;bold&lt;/b&gt;">
            <meta property="og:title" content="second">
            <meta property="og:image" content="../pic.png?a=1&amp;b=2">
            <meta property="og:site_name" content="Example">
            <meta property="fb:app_id" content="1"></head><body><p>text</p></body></html>"""
        self.assertEqual(
            facts(page),
            {
                "og:title": "A & B c",
                "og:description": "<b>bold</b>",
                "og:image": "https://example.org/pic.png?a=1&b=2",
                "og:site_name": "Example",
            },
        )

    def test_without_open_graph(self) -> None:
        """The title, the page's description or its first text; pictures meant for previews."""
        page = """<html><head><base href="https://cdn.example.org/x/"><title> Title </title>
            <meta name="description" content="Described"><link rel="image_src" href="i.jpg">
            </head><body>text</body></html>"""
        self.assertEqual(
            facts(page),
            {
                "og:title": "Title",
                "og:description": "Described",
                "og:image": "https://cdn.example.org/x/i.jpg",
            },
        )
        page = """<body><script>var a = 1</script><nav>menu</nav><h1>Head<b>line</b></h1>
            <svg><title>no</title></svg><p>One <i>two</i>.<p>Three<br>four
            <style>p {}</style><noscript>no</noscript></body>"""
        self.assertEqual(
            facts(page),
            {"og:title": "Headline", "og:description": "Headline\nOne two.\nThree\nfour"},
        )
        page = '<meta name="twitter:title" content="T"><meta name="twitter:image" content="/t.png">'
        self.assertEqual(facts(page), {"og:title": "T", "og:image": "https://example.org/t.png"})

    def test_encodings(self) -> None:
        title = "<meta charset=iso-8859-1><title>\xe4</title>".encode("latin-1")
        self.assertEqual(facts(title)["og:title"], "ä")
        self.assertEqual(facts("<title>ä漢</title>".encode(), "utf-8")["og:title"], "ä漢")
        self.assertEqual(facts("<title>д</title>".encode("koi8-r"), "koi8-r")["og:title"], "д")
        self.assertEqual(facts(b"<title>a</title>", "no-such-thing")["og:title"], "a")

    def test_nothing_but_text_and_addresses(self) -> None:
        """Shows MED-10."""
        page = """<meta property="og:image" content="javascript:alert(1)">
            <meta property="og:title" content="\u202egnp.exe\x07\x00">
            <meta property="og:video" content="x"><meta property="og:&lt;x" content="x">"""
        found = facts(page)
        self.assertEqual(found, {"og:title": "gnp.exe", "og:video": "x"})
        for target in ("data:image/png;base64,AA", "file:///etc/passwd", "http://[", "ftp://a/b"):
            found = facts(f'<meta property="og:image" content="{target}"><title>t</title>')
            self.assertNotIn("og:image", found, target)

    def test_what_is_too_much(self) -> None:
        metas = "".join(f'<meta property="og:x{n}" content="{"y" * 5000}">' for n in range(500))
        found = facts(f"<title>{'t' * 100_000}</title>{metas}<p>{'word ' * 100_000}")
        self.assertLess(len(found), 60)
        self.assertLessEqual(max(map(len, found.values())), MAX_TEXT)
        self.assertTrue(found["og:title"].endswith("…"))
        for page in (
            "<div>" * 100_000,
            "<a " + 'b="c" ' * 100_000,
            "<!--" * 50_000,
            "<![CDATA[" * 50_000,
            '<!DOCTYPE a [<!ENTITY x "' + "y" * 1000 + '">]><p>&x;&x;',
            "&" * 300_000,
        ):
            facts(page)

    def test_rubbish(self) -> None:
        for page in (b"", b" ", b"\x00", b"<", b"<html", b"\xff\xfe<\x00", b"%PDF-1.4", b"{}"):
            self.assertNotIn("og:image", facts(page))
        facts(os.urandom(5000))

    @given(st.text(alphabet="<>/=\"'ametopg:il nh1 \n&;!-", max_size=300))
    def test_anything(self, page: str) -> None:
        for name, value in facts(page).items():
            self.assertTrue(name.startswith("og:"))
            self.assertIsInstance(value, str)


class EmbedTest(SynchronousTestCase):
    def test_link(self) -> None:
        """Shows MED-10."""
        link = '<link rel="alternate" type="application/json+oembed" href="/o?url=a&amp;b=c">'
        self.assertEqual(embed_link(link.encode(), None, URL), "https://example.org/o?url=a&b=c")
        self.assertIsNone(embed_link(b"<link rel=alternate type=text/xml href=/o>", None, URL))
        self.assertIsNone(embed_link(b"", None, URL))
        bad = link.replace("/o?", "http://[/o?")
        self.assertIsNone(embed_link(bad.encode(), None, URL))

    def test_answers(self) -> None:
        """Shows MED-10."""
        photo = {"version": "1.0", "type": "photo", "url": "https://a/b", "title": "T", "html": "x"}
        self.assertEqual(embedded(photo), {"og:title": "T", "og:image": "https://a/b"})
        video = {"version": 1, "type": "video", "author_name": "N", "thumbnail_url": "https://c"}
        self.assertEqual(embedded(video), {"og:title": "N", "og:image": "https://c"})
        wrong: Any
        for wrong in ([], None, {}, {"version": "2.0"}, {"version": "1.0", "title": 3}, "x"):
            self.assertEqual(embedded(wrong), {})
