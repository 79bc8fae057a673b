"""Small forms of pictures."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.media.picture_workers import PictureWorkers
from homeserver.media.spool import Spool
from tests.homeserver.media.pictures import animation, bomb, opened, picture
from tests.support.media import download, stored_files, upload
from tests.support.network import eventually
from tests.support.server import make_server

THUMBNAIL = "/_matrix/client/v1/media/thumbnail"


class ThumbnailTests(TestCase):
    timeout = 60

    async def small(self, name: str, width: int, height: int, **query: Any) -> Image.Image:
        answer = await self.answer(name, width=width, height=height, **query)
        self.assertEqual(answer.status, 200, answer.body)
        image = opened(answer.body)
        image.load()
        self.assertEqual(answer.headers["content-type"], Image.MIME[image.format or ""])
        kind = answer.headers["content-type"].partition("/")[2]
        self.assertEqual(
            answer.headers["content-disposition"], f'inline; filename="thumbnail.{kind}"'
        )
        self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
        return image

    async def answer(self, name: str, path: str = THUMBNAIL, **query: Any) -> Any:
        return await download(self.alice, name, path, **query)

    async def start(self, **media: Any) -> None:
        self.server = await make_server(self, media=media)
        self.alice = await self.server.register()

    async def test_sizes(self) -> None:
        """Scaled within a standard box, cropped to the proportions, never larger than the
        picture; small pictures as they are. Shows MED-8, MED-3."""
        await self.start()
        name = await upload(self.alice, picture(1000, 500))
        for width, height, method, expected in (
            (32, 32, "scale", (32, 16)),
            (33, 10, "scale", (96, 48)),
            (320, 240, "scale", (320, 160)),
            (800, 600, "scale", (800, 400)),
            (5000, 5000, "scale", (800, 400)),
            (32, 32, "crop", (32, 32)),
            (90, 90, "crop", (96, 96)),
            (300, 100, "crop", (320, 112)),
            (800, 800, "crop", (500, 500)),
            (10_000, 1, "crop", (800, 16)),
        ):
            image = await self.small(name, width, height, method=method)
            self.assertEqual(image.size, expected, (width, height, method))
            self.assertGreater(image.convert("RGB").getpixel((0, 0))[0], 200)  # type: ignore[index]
        tiny = picture(20, 10, "JPEG")
        name = await upload(self.alice, tiny, "image/jpeg")
        for method in ("crop", "scale"):
            answer = await self.answer(name, width=32, height=32, method=method)
            self.assertEqual((answer.body, answer.status), (tiny, 200))
            self.assertEqual(answer.headers["content-type"], "image/jpeg")
        unstable = "/_matrix/client/unstable/org.matrix.msc3916/media/thumbnail"
        answer = await self.answer(name, unstable, width=32, height=32)
        self.assertEqual(answer.body, tiny)

    async def test_kinds(self) -> None:
        """Shows MED-8."""
        await self.start()
        for kind, mode, expected in (
            ("JPEG", "RGB", "JPEG"),
            ("JPEG", "L", "JPEG"),
            ("JPEG", "CMYK", "JPEG"),
            ("PNG", "RGBA", "PNG"),
            ("PNG", "P", "PNG"),
            ("PNG", "1", "PNG"),
            ("PNG", "I;16", "PNG"),
            ("GIF", "RGB", "JPEG"),
            ("WEBP", "RGB", "JPEG"),
            ("WEBP", "RGBA", "PNG"),
        ):
            if mode == "I;16":
                file = io.BytesIO()
                Image.new("I;16", (400, 300)).save(file, "PNG")
                data = file.getvalue()
            else:
                image = opened(picture(400, 300)).convert(mode)
                if mode == "RGBA":
                    image.putalpha(100)
                file = io.BytesIO()
                image.save(file, kind)
                data = file.getvalue()
            image = await self.small(await upload(self.alice, data), 96, 96)
            self.assertEqual((image.format, image.size), (expected, (96, 72)), (kind, mode))

    async def test_orientation(self) -> None:
        """A picture that the camera laid on its side stands. Shows MED-8."""
        await self.start()
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees
        name = await upload(self.alice, picture(1600, 1200, "JPEG", exif=exif), "image/jpeg")
        for query, size in (({}, (240, 320)), ({"method": "crop"}, (320, 240))):
            expected = (180, 240) if not query else size
            image = await self.small(name, 320, 240, **query)
            self.assertEqual(image.size, expected)
            # Red was left and up; turned clockwise it is right and up.
            corner: Any = image.getpixel((image.width - 2, 1))
            self.assertGreater(corner[0], 150, corner)
            self.assertNotIn(0x0112, image.getexif())

    async def test_animated(self) -> None:
        """Moving where asked for, if it is not too long; else still. Shows MED-8."""
        await self.start(thumbnails={"max_frames": 5})
        for kind in ("GIF", "WEBP", "PNG"):
            name = await upload(self.alice, animation(3, kind), "image/gif")
            for animated, frames in ((True, 3), (False, 1), (None, 1)):
                query = {} if animated is None else {"animated": animated}
                image = await self.small(name, 96, 96, **query)
                self.assertEqual(getattr(image, "n_frames", 1), frames, (kind, animated))
                if frames > 1:
                    self.assertEqual((image.format, image.size), ("WEBP", (96, 48)))
        small = animation(3, "GIF", (30, 20))
        name = await upload(self.alice, small, "image/gif")
        self.assertEqual((await self.answer(name, width=32, height=32, animated=True)).body, small)
        self.assertEqual(getattr(await self.small(name, 32, 32), "n_frames", 1), 1)
        name = await upload(self.alice, animation(6), "image/gif")
        image = await self.small(name, 96, 96, animated=True)
        self.assertEqual(getattr(image, "n_frames", 1), 1)

    async def test_several_pictures(self) -> None:
        """What a phone keeps beside a photo in its file is no movement. Shows MED-8."""
        await self.start()
        file = io.BytesIO()
        photo = opened(picture(200, 100)).convert("RGB")
        photo.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (200, 100))])
        name = await upload(self.alice, file.getvalue(), "image/jpeg")
        image = await self.small(name, 96, 96, animated=True)
        self.assertEqual((image.format, image.size), ("JPEG", (96, 48)))
        answer = await self.answer(name, width=320, height=240)
        self.assertEqual(answer.body, file.getvalue())
        self.assertEqual(answer.headers["content-type"], "image/jpeg")

    async def test_refused(self) -> None:
        """Bombs, and what is no picture whatever it says it is. Shows MED-8."""
        await self.start(thumbnails={"max_pixels": 1_000_000})
        for data, content_type, status, errcode in (
            (bomb(60_000, 60_000), "image/png", 413, "M_TOO_LARGE"),
            (picture(1001, 1000), "image/png", 413, "M_TOO_LARGE"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 400, "M_UNKNOWN"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/png", 400, "M_UNKNOWN"),
            (b"text", "image/png", 400, "M_UNKNOWN"),
            (b"", "image/png", 400, "M_UNKNOWN"),
            (picture()[:50], "image/png", 400, "M_UNKNOWN"),
        ):
            name = await upload(self.alice, data, content_type)
            answer = await self.answer(name, width=96, height=96)
            self.assertEqual((answer.status, answer.body["errcode"]), (status, errcode))
        for query in (
            {"width": 0, "height": 1},
            {"width": 1, "height": -5},
            {"width": "a", "height": 1},
            {"width": 1},
            {"width": 1, "height": 1, "method": "stretch"},
        ):
            self.assertEqual((await self.answer(name, **query)).status, 400, query)
        # A picture is one, whatever it says it is.
        name = await upload(self.alice, picture(10, 10), "text/html")
        image = await self.small(name, 32, 32)
        self.assertEqual(image.format, "PNG")

    async def test_takes_too_long(self) -> None:
        """A picture that takes too long is given up, and the next one is made. Shows MED-8."""
        await self.start(thumbnails={"timeout": "0ms"})
        name = await upload(self.alice, picture())
        for _ in range(2):
            answer = await self.answer(name, width=96, height=96)
            self.assertEqual((answer.status, answer.body["errcode"]), (413, "M_TOO_LARGE"))
        await eventually(lambda: len(stored_files(self.server)) == 1)

    async def test_given_up_once(self) -> None:
        """A picture that takes too long does so once, in whatever sizes it is asked for."""
        await self.start(thumbnails={"timeout": "0ms", "workers": 2})
        name = await upload(self.alice, picture())
        tried: list[Any] = []
        run = PictureWorkers.run

        async def counted(workers: PictureWorkers, job: Any) -> Any:
            tried.append(job)
            return await run(workers, job)

        self.patch(PictureWorkers, "run", counted)
        asked = [
            Deferred.fromCoroutine(self.answer(name, width=width, height=32, method="crop"))
            for width in (32, 64, 96, 160, 240)
        ]
        for each in asked:
            answer = await each
            self.assertEqual((answer.status, answer.body["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual(len(tried), 1)
        # What does not move may be made all the same where what moves could not be.
        await self.answer(name, width=96, height=96, animated="true")
        self.assertEqual(len(tried), 2)

    async def test_disk_that_fails(self) -> None:
        """Where nothing can be written, that is no fault of the picture."""
        await self.start()
        name = await upload(self.alice, picture())
        target = Path(self.mktemp())  # missing in a directory that is, then on a full disk
        for path in (target / "x", target):
            self.patch(Spool, "new_path", lambda spool, path=path: path)
            answer = await self.answer(name, width=96, height=96)
            self.assertEqual((answer.status, answer.body["errcode"]), (503, "M_UNKNOWN"), path)
            if not target.is_symlink():
                target.symlink_to("/dev/full")

    async def test_kept(self) -> None:
        """Made once for the same content, also of those who ask at once."""
        await self.start(thumbnails={"workers": 2})
        first = await upload(self.alice, picture())
        second = await upload(self.alice, picture())
        asked = [
            Deferred.fromCoroutine(self.small(name, 96, 96)) for name in (first, second, first)
        ]
        for each in asked:
            await each
        rows = await self.server.homeserver.db.read(
            lambda txn: txn.all("SELECT source FROM media_thumbnails")
        )
        self.assertEqual(len(rows), 1)
        await eventually(lambda: len(stored_files(self.server)) == 2)

    async def test_frozen(self) -> None:
        """Shows MED-3."""
        await self.start()
        name = await upload(self.alice, picture())
        for version in ("r0", "v1", "v3"):
            path = f"/_matrix/media/{version}/thumbnail"
            answer = await self.answer(name, path, width=32, height=32)
            self.assertEqual((answer.status, answer.body["errcode"]), (404, "M_NOT_FOUND"))
