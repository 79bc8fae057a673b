"""Media."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from config.types import Duration, Size, option

_MAX_UPLOAD = 5 << 30
"""What a bucket takes in one request."""


def _check_url(url: str | None) -> str | None:
    if url is None or url.startswith(("http://", "https://")):
        return None
    return "must start with https:// or http://"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """A bucket of Amazon S3 or of a server that speaks its protocol, such as MinIO."""

    bucket: str = option(doc="The name of the bucket.")
    prefix: str = option("", "What the names of all objects begin with.")
    endpoint_url: str | None = option(
        None, "Where the server is; without it: Amazon's.", check=_check_url
    )
    region: str | None = option(None, "The region.")
    access_key_id: str | None = option(
        None, "Without it: what the environment or the machine's role gives."
    )
    secret_access_key: str | None = option(None, "The secret of the access key.", secret=True)
    redirect: bool = option(
        False,
        "Whether clients are sent to the bucket for what they download, by addresses that are "
        "good for a few minutes. They must reach endpoint_url then.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaStore:
    """Where files are kept."""

    directory: Path | None = option(None, "A directory; without it: media in the data directory.")
    s3: S3 | None = option(
        None,
        "A bucket, instead of a directory. It needs the package boto3 (pip install hearth[s3]).",
        example="{bucket: hearth-media}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Thumbnails:
    """Small forms of pictures."""

    max_pixels: int = option(
        64_000_000, "Width times height of the largest picture that is looked at.", minimum=1
    )
    max_frames: int = option(
        200, "The longest animation that is made smaller; longer ones stand still.", minimum=1
    )
    timeout: Duration = option(Duration(20_000), "How long one picture may take.")
    workers: int = option(
        1, "How many pictures one process of the server makes smaller at a time.", minimum=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSpace:
    """How much room files may take. What can be had or made again is dropped, the longest unused
    first; nothing else is."""

    per_user: Size | None = option(None, "All files of one user.")
    local: Size | None = option(None, "All files that users here sent; then nobody can send more.")
    remote: Size | None = option(Size(10 << 30), "Copies of other servers' files.")
    thumbnails: Size | None = option(Size(2 << 30), "Small forms of pictures.")
    previews: Size | None = option(Size(1 << 30), "Pictures of previewed pages.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaRetention:
    """How long files are kept. Files protected by an administrator stay."""

    local_unused: Duration | None = option(
        None, "Delete what users here sent when nobody asked for it so long. It is lost then."
    )
    local_age: Duration | None = option(None, "Delete what users here sent so long ago.")
    remote_unused: Duration | None = option(
        Duration(90 * 86_400_000), "Drop copies of other servers' files unused for so long."
    )
    remote_age: Duration | None = option(None, "Drop copies of other servers' files so old.")
    redacted: Duration | None = option(
        Duration(7 * 86_400_000),
        "Delete a file so long after all events in which it was sent were redacted; null: never.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaScan:
    """A look at each file before anybody gets it, for example by ClamAV. Give one of both."""

    command: tuple[str, ...] = option(
        (),
        "A program and its arguments; the path of the file is added. Status 0: clean, 1: harmful.",
        example='["clamdscan", "--no-summary", "--fdpass"]',
    )
    url: str | None = option(
        None,
        "Where the file is sent by POST. Status 200 or 204: clean, 403 or 406: harmful.",
        check=_check_url,
    )
    timeout: Duration = option(Duration(60_000), "How long a scan may take.")
    if_failed: Literal["refuse", "deliver"] = option(
        "refuse", "What is done while the scanner does not work."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Files that people send."""

    store: MediaStore = option(MediaStore, "Where files are kept.")
    max_upload_size: Size = option(
        Size(50 << 20), "The largest file that users may send.", minimum=1, maximum=_MAX_UPLOAD
    )
    max_remote_size: Size = option(
        Size(100 << 20),
        "The largest file that is fetched from other servers.",
        minimum=1,
        maximum=_MAX_UPLOAD,
    )
    upload_within: Duration = option(
        Duration(86_400_000),
        "How long a client may take to upload what it has reserved a name for.",
    )
    reserved_per_user: int = option(
        50, "How many names one user may have reserved at a time.", minimum=1
    )
    unauthenticated: bool = option(
        False,
        "Whether new files can also be had without an access token, by addresses that old "
        "clients and servers use. Files keep what was so when they came.",
    )
    thumbnails: Thumbnails = option(Thumbnails, "Small forms of pictures.")
    space: MediaSpace = option(MediaSpace, "How much room files may take.")
    retention: MediaRetention = option(MediaRetention, "How long files are kept.")
    scan: MediaScan | None = option(
        None, "A look at each file before anybody gets it.", example="{command: [clamdscan]}"
    )
