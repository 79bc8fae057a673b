"""A program that makes pictures smaller, one at a time, for as long as it is asked to.

It runs as a process of its own, with limits on memory: what is in the pictures was made by
strangers. It reads one JSON object a line and answers with one. A picture that takes too long is
ended with the process, by whoever asked.

It imports nothing of the server, so that it starts quickly and holds nothing worth having.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
from typing import Any

from PIL import Image, ImageFile, ImageOps, features

MEMORY = 2 << 30
"""Bytes of addresses that the process may use."""

_FORMATS = ["JPEG", "PNG", "GIF", "WEBP", *(["AVIF"] if features.check("avif") else [])]
_MAX_SIDE = 65_000
_MAX_ANIMATED_PIXELS = 60_000_000
"""Of all frames together, after they were made smaller."""


class Refused(Exception):
    """The picture cannot be made smaller; the argument is the reason that the server knows."""


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Carry out one job.

    It has `source` and `target` (paths), `width`, `height`, `method` (crop or scale), `animated`,
    `max_pixels`, `max_frames`. The answer has `error` (what `Refused` says), or `content_type` of
    what was written; with `original` nothing was, as the picture is small enough as it is.
    """
    try:
        return _made(job)
    except Refused as error:
        return {"error": str(error)}
    except Image.DecompressionBombError:
        return {"error": "too_large"}
    except MemoryError:
        return {"error": "too_large"}
    except OSError as error:
        # Damaged files have no number: those are of the disk.
        kind = "no_picture" if error.errno is None else "disk"
        return {"error": kind, "reason": str(error)[:300]}
    except Exception as error:  # whatever a library thinks of a damaged file
        return {"error": "no_picture", "reason": f"{type(error).__name__}: {error}"[:300]}


def _made(job: dict[str, Any]) -> dict[str, Any]:
    with Image.open(job["source"], formats=_FORMATS) as image:
        _check_size(image, job["max_pixels"])
        if image.format == "MPO":
            # A photo and what a camera keeps beside it (depth, brightness): nothing that moves.
            image.format = "JPEG"
            frames = 1
        else:
            frames = getattr(image, "n_frames", 1)
        is_animated = frames > 1
        oriented = _oriented_size(image)
        target = _target(oriented, job)
        keeps_moving = job["animated"] and is_animated
        as_it_is = target is None and image.format in ("JPEG", "PNG", "GIF", "WEBP")
        if as_it_is and (keeps_moving or not is_animated):
            return {"original": True, "content_type": Image.MIME[image.format or ""]}
        size = target or oriented
        is_short = frames <= job["max_frames"]
        if keeps_moving and is_short and size[0] * size[1] * frames <= _MAX_ANIMATED_PIXELS:
            return _animated(image, frames, size, job)
        return _still(image, size, job)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels or max(width, height) > _MAX_SIDE:
        raise Refused("too_large")
    if not width or not height:
        raise Refused("no_picture")


def _oriented_size(image: Image.Image) -> tuple[int, int]:
    """The size as it is looked at."""
    width, height = image.size
    return (height, width) if _is_turned(image) else (width, height)


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # damaged metadata is no reason to show nothing
        return False


def _target(size: tuple[int, int], job: dict[str, Any]) -> tuple[int, int] | None:
    """The size to make; None if the picture is small enough. Never larger than it is."""
    width, height = size
    wanted = (job["width"], job["height"])
    if job["method"] == "crop":
        if width <= wanted[0] and height <= wanted[1]:
            return None
        # Smaller than asked for rather than stretched, in the proportions that were asked for.
        factor = min(1.0, width / wanted[0], height / wanted[1])
        return max(1, round(wanted[0] * factor)), max(1, round(wanted[1] * factor))
    factor = min(wanted[0] / width, wanted[1] / height)
    if factor >= 1:
        return None
    return max(1, round(width * factor)), max(1, round(height * factor))


def _still(image: Image.Image, size: tuple[int, int], job: dict[str, Any]) -> dict[str, Any]:
    if image.format == "JPEG":
        # Decodes an eighth, a quarter or a half of it, whatever is still enough.
        enough = size if not _is_turned(image) else (size[1], size[0])
        if job["method"] == "crop":
            enough = _covering(image.size, enough)
        image.draft("RGB", (enough[0] * 2, enough[1] * 2))
    ImageFile.LOAD_TRUNCATED_IMAGES = image.format == "JPEG"
    image.load()
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    plain = _resized(_plain(image), size, job["method"])
    if plain.mode == "RGBA" or image.format == "PNG":
        return _saved(plain, "PNG", "image/png", job, compress_level=4)
    return _saved(plain, "JPEG", "image/jpeg", job, quality=80)


def _covering(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The size of a whole picture of which a box is cut out."""
    factor = max(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _plain(image: Image.Image) -> Image.Image:
    """The picture in one of two modes, so that resizing knows what the numbers mean."""
    if image.mode in ("RGB", "RGBA"):
        return image
    if image.mode in ("LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode.startswith(("I", "F")):
        return image.convert("L").convert("RGB")
    return image.convert("RGB")


def _resized(image: Image.Image, size: tuple[int, int], method: str) -> Image.Image:
    if image.size == size:
        return image
    box = None
    if method == "crop":
        width, height = image.size
        part = min(width / size[0], height / size[1])
        cut = (size[0] * part, size[1] * part)
        left, top = (width - cut[0]) / 2, (height - cut[1]) / 2
        box = (left, top, left + cut[0], top + cut[1])
    return image.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def _animated(
    image: Image.Image, count: int, size: tuple[int, int], job: dict[str, Any]
) -> dict[str, Any]:
    frames, durations = [], []
    for number in range(count):
        image.seek(number)
        durations.append(min(60_000, max(10, int(image.info.get("duration") or 100))))
        frames.append(_resized(_plain(image.copy()), size, job["method"]))
    return _saved(
        frames[0],
        "WEBP",
        "image/webp",
        job,
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=int(image.info.get("loop", 0) or 0),
        quality=75,
        method=2,
    )


def _saved(
    image: Image.Image, kind: str, content_type: str, job: dict[str, Any], **options: Any
) -> dict[str, Any]:
    # Nothing of what a camera wrote down goes along.
    image.info = {}
    try:
        image.save(job["target"], kind, **options)
    except OSError as error:  # Pillow does not always pass the number on
        raise Refused("disk") from error
    return {"content_type": content_type}


def main() -> None:
    """Answer jobs until the input ends."""
    Image.MAX_IMAGE_PIXELS = None  # judged by `_check_size`
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    os.nice(10)  # people who wait for messages go first
    Image.init()
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
