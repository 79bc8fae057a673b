"""Composition of what keeps, gives and fetches the files that people send."""

from __future__ import annotations

from config import Config
from config.model import MediaScan
from federation.client.agent import Agent
from federation.client.errors import BadCaFile
from federation.client.media import MediaCalls
from federation.client.signer import RequestSigner
from homeserver.api.client.media import UPLOAD_BODY
from homeserver.media.administration import MediaAdministration
from homeserver.media.downloads import Downloads
from homeserver.media.files import MediaFiles
from homeserver.media.janitor import Caps, Janitor, Keep
from homeserver.media.local_store import LocalStore
from homeserver.media.picture_workers import PictureWorkers
from homeserver.media.pictures import Pictures
from homeserver.media.previews import PreviewRules, Previews
from homeserver.media.references import SentMedia
from homeserver.media.remote import RemoteMedia, RemoteRules
from homeserver.media.remote_files import RemoteFiles
from homeserver.media.removal import MediaRemoval
from homeserver.media.s3_store import MissingLibrary, S3Store
from homeserver.media.scanning import MediaScanner, ScanRules
from homeserver.media.spool import Spool
from homeserver.media.store import Store
from homeserver.media.sweeping import Sweeping
from homeserver.media.threads import FileThreads
from homeserver.media.thumbnails import PictureLimits, Thumbnails
from homeserver.media.uploads import UploadRules, Uploads
from homeserver.media.usage import Usage
from homeserver.outbound.http import OutgoingHttpClient
from homeserver.outbound.pages import WebPages
from homeserver.parts import Parts
from homeserver.rooms.append import Appender
from homeserver.startup import CannotStart

SPOOL = "incoming"
"""The directory for what is on the way, in that for media."""


def body_limits(config: Config) -> dict[str, int]:
    """For the router: how much endpoints take that name a limit."""
    return {UPLOAD_BODY: int(config.media.max_upload_size)}


def build_media(parts: Parts) -> None:
    """Everything about files. Raises CannotStart."""
    config, db, reactor, add = parts.config, parts.db, parts.reactor, parts.services.add
    threads = FileThreads(reactor)
    parts.stops.append(threads.stop)
    directory = (config.media.store.directory or config.data_directory / "media") / SPOOL
    spool = Spool(directory, db.process_token, threads)
    try:
        spool.prepare()
    except OSError as error:
        raise CannotStart(f"Cannot use the directory {directory}: {error.strerror}.") from None
    files = add(MediaFiles(db, _store(config, threads, spool), spool, threads))
    usage = add(Usage(db, reactor))
    parts.stops.append(usage.stop)
    add(Uploads(db, files, reactor, _upload_rules(config)))
    _build_previews(parts, files)
    frozen = not config.media.unauthenticated
    name = config.server_name
    downloads = add(Downloads(db, parts.feed, reactor, usage, name, frozen=frozen))
    thumbnails = config.media.thumbnails
    workers = PictureWorkers(reactor, thumbnails.workers, thumbnails.timeout.seconds)
    parts.stops.append(workers.stop)
    limits = PictureLimits(thumbnails.max_pixels, thumbnails.max_frames)
    made = add(Thumbnails(db, files, workers, usage, reactor, limits))
    pictures = add(Pictures(downloads, made))
    rules = RemoteRules(int(config.media.max_remote_size), frozen)
    signer = RequestSigner(name, parts.keys[0])
    calls = MediaCalls(name, signer, parts.services[Agent], reactor)
    asking = RemoteFiles(calls, parts.services[OutgoingHttpClient], rules.max_bytes)
    remote = add(RemoteMedia(db, parts.feed, reactor, files, asking, made, rules))
    parts.stops.append(remote.stop)
    downloads.remote = pictures.remote = remote
    removal = add(MediaRemoval(db, files, reactor, config.server_name))
    add(MediaAdministration(db, removal, config.server_name))
    sweeping = add(Sweeping(db, files, reactor))
    janitor = add(Janitor(db, removal, sweeping, reactor, _caps(config), _keep(config)))
    parts.stops.append(janitor.stop)
    if config.media.scan is not None:
        scan = _scan_rules(config.media.scan)
        downloads.scanner = pictures.scanner = MediaScanner(db, files, removal, reactor, scan)
    sent = add(SentMedia(db, reactor, config.server_name))
    parts.services[Appender].on_written.append(sent.written)
    parts.stops.append(sent.stop)


def start_media(parts: Parts) -> None:
    """Begin what is done without being asked."""
    parts.services[Usage].start()
    parts.services[SentMedia].wake()
    parts.services[Janitor].start()
    parts.services[Previews].start()


def _build_previews(parts: Parts, files: MediaFiles) -> None:
    config = parts.config
    try:
        pages = WebPages(parts.reactor, config.url_previews, config.outgoing_http)
    except BadCaFile as error:
        raise CannotStart(f"outgoing_http.ca_files: {error}.") from None
    rules = PreviewRules(
        server_name=config.server_name,
        enabled=config.url_previews.enabled,
        keep_ms=int(config.url_previews.keep),
        authenticated=not config.media.unauthenticated,
    )
    previews = parts.services.add(Previews(parts.db, pages, files, parts.reactor, rules))
    parts.stops.append(previews.stop)


def _store(config: Config, threads: FileThreads, spool: Spool) -> Store:
    chosen = config.media.store
    if chosen.s3 is None:
        return LocalStore(chosen.directory or config.data_directory / "media", threads)
    try:
        return S3Store(chosen.s3, threads, spool)
    except MissingLibrary:
        raise CannotStart(
            "media.store.s3 needs the package boto3: pip install 'hearth[s3]'."
        ) from None


def _upload_rules(config: Config) -> UploadRules:
    media, space = config.media, config.media.space
    return UploadRules(
        server_name=config.server_name,
        max_bytes=int(media.max_upload_size),
        within_ms=int(media.upload_within),
        reserved_per_user=media.reserved_per_user,
        authenticated=not media.unauthenticated,
        per_user_bytes=_number(space.per_user),
        total_bytes=_number(space.local),
    )


def _number(value: int | None) -> int | None:
    """A size or duration of the configuration as a plain number."""
    return None if value is None else int(value)


def _caps(config: Config) -> Caps:
    space = config.media.space
    return Caps(_number(space.remote), _number(space.thumbnails), _number(space.previews))


def _keep(config: Config) -> Keep:
    kept = config.media.retention
    return Keep(
        local_unused=_number(kept.local_unused),
        local_age=_number(kept.local_age),
        remote_unused=_number(kept.remote_unused),
        remote_age=_number(kept.remote_age),
        redacted=_number(kept.redacted),
    )


def _scan_rules(scan: MediaScan) -> ScanRules:
    return ScanRules(scan.command, scan.url, scan.timeout.seconds, scan.if_failed == "deliver")
