from __future__ import annotations

import random
from collections.abc import AsyncIterator

from twisted.trial.unittest import TestCase

from homeserver.media.multipart import (
    BadMultipart,
    MultipartReader,
    MultipartWriter,
    boundary_of,
)


async def pieces(data: bytes, sizes: random.Random) -> AsyncIterator[bytes]:
    while data:
        size = sizes.randrange(1, 40)
        yield data[:size]
        data = data[size:]


async def collected(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


class MultipartTests(TestCase):
    async def test_what_is_written_is_read(self) -> None:
        """In whatever pieces it comes, and whatever is in it."""
        for seed in range(60):
            rng = random.Random(seed)
            writer = MultipartWriter({"Content-Type": "image/png", "X": "ü"})
            boundary = writer.content_type.rpartition("=")[2].encode()
            # Made of what could be taken for a delimiter.
            parts = [b"\r\n--", boundary[:-1], b"--", b"\r\n", b"x", boundary]
            data = b"".join(rng.choice(parts) for _ in range(rng.randrange(40)))
            while b"--" + boundary in data:
                data = data.replace(b"--" + boundary, b"")
            body = await collected(writer.body(pieces(data, rng)))
            self.assertEqual(len(body), writer.length(len(data)))
            reader = MultipartReader(writer.content_type, pieces(body, rng))
            self.assertEqual(await reader.next_part(), {"content-type": "application/json"})
            self.assertEqual(await collected(reader.body()), b"{}")
            headers = await reader.next_part()
            self.assertEqual(headers, {"content-type": "image/png", "x": "ü"})
            self.assertEqual(await collected(reader.body()), data, seed)
            self.assertIsNone(await reader.next_part())

    async def test_preamble_and_padding(self) -> None:
        body = b"ignored\r\n--b \t\r\nA: 1\r\nB:2\r\n\r\nx\r\n--b\r\n\r\n--b--"
        reader = MultipartReader("multipart/mixed; boundary=b", pieces(body, random.Random(1)))
        self.assertEqual(await reader.next_part(), {"a": "1", "b": "2"})
        self.assertEqual(await collected(reader.body()), b"x")
        self.assertEqual(await reader.next_part(), {})
        self.assertEqual(await collected(reader.body()), b"")
        self.assertIsNone(await reader.next_part())

    async def test_breaks_off(self) -> None:
        """At every byte but those behind the end."""
        body = b"--b\r\nA: 1\r\n\r\nxyz\r\n--b\r\n\r\nz\r\n--b--"
        for end in range(len(body) - 2):
            reader = MultipartReader("multipart/mixed; boundary=b", _once(body[:end]))
            with self.assertRaises(BadMultipart):
                while await reader.next_part() is not None:
                    await collected(reader.body())

    def test_boundaries(self) -> None:
        for text, expected in (
            ("multipart/mixed; boundary=abc", b"abc"),
            ('Multipart/Mixed; a=b; BOUNDARY="a b;c"; d=e', b"a b;c"),
        ):
            self.assertEqual(boundary_of(text), expected)
        for wrong in ("image/png", "multipart/mixed", "multipart/mixed; boundary=", ""):
            with self.assertRaises(BadMultipart):
                boundary_of(wrong)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
