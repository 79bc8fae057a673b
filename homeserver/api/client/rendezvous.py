"""Mailboxes for logging in with a QR code (MSC4108 of 2024, MSC4388 of 2025).

What two devices write there is encrypted by them. Who knows the ID may read and write.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from email.utils import formatdate

import msgspec
from twisted.internet.interfaces import IReactorTime

from homeserver.core.errors import (
    MatrixError,
    forbidden,
    invalid_param,
    missing_param,
    not_found,
    too_large,
)
from homeserver.web.endpoint import EMPTY, Auth, Empty, Request, Response, endpoint
from storage.rendezvous import LIFETIME_MS, Mailbox, RendezvousStore

_2024 = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
_2025 = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
MAX_BYTES = 4096
"""Of what a mailbox holds."""
_MAX_BODY = 32_768


@dataclass(frozen=True, slots=True)
class RendezvousSettings:
    """`base_url`: where clients reach this server, with a slash at its end."""

    base_url: str
    clock: IReactorTime

    def left_ms(self, box: Mailbox) -> int:
        """For how long a mailbox still lives."""
        return max(0, box.expires_ms - int(self.clock.seconds() * 1000))


class UrlAnswer(msgspec.Struct):
    url: str


@endpoint("POST", _2024, auth=Auth.NONE, rate="login", max_body=_MAX_BODY, returns=UrlAnswer)
async def post_rendezvous(
    request: Request, boxes: RendezvousStore, settings: RendezvousSettings
) -> Response:
    """Open a mailbox; its address, and in headers its ETag and its end."""
    mailbox_id = _new_id("a")
    box = await boxes.create(mailbox_id, _text_of(request))
    url = f"{settings.base_url}{_2024[1:]}/{mailbox_id}"
    return Response(201, UrlAnswer(url), _headers(box))


@endpoint("GET", f"{_2024}/{{mailbox_id}}", auth=Auth.NONE, rate="read", returns=bytes)
async def get_rendezvous(request: Request, mailbox_id: str, boxes: RendezvousStore) -> Response:
    """What the mailbox holds, unless it is what the client has (`If-None-Match`)."""
    _check_destination(request)
    box = _found(await boxes.get(_checked(mailbox_id, "a")))
    if _etag(box) in _tags(request.header("if-none-match")):
        return Response(304, None, _headers(box))
    return Response(200, box.data, {**_headers(box), "Content-Type": "text/plain"})


@endpoint(
    "PUT",
    f"{_2024}/{{mailbox_id}}",
    auth=Auth.NONE,
    rate="read",
    max_body=_MAX_BODY,
    returns=bytes,
)
async def put_rendezvous(request: Request, mailbox_id: str, boxes: RendezvousStore) -> Response:
    """Replace what the mailbox holds if it is still what the client saw (`If-Match`)."""
    data = _text_of(request)
    seen = request.header("if-match")
    if seen is None:
        raise missing_param("If-Match")
    box = _found(await boxes.replace(_checked(mailbox_id, "a"), seen.strip().strip('"'), data))
    if box.data != data:
        body = {
            "errcode": "M_CONCURRENT_WRITE",
            "error": "The other side wrote meanwhile.",
            "org.matrix.msc4108.errcode": "M_CONCURRENT_WRITE",
        }
        return Response(412, body, _headers(box))
    return Response(202, b"", {**_headers(box), "Content-Type": "text/plain"})


@endpoint("DELETE", f"{_2024}/{{mailbox_id}}", auth=Auth.NONE, rate="read", returns=bytes)
async def delete_rendezvous(mailbox_id: str, boxes: RendezvousStore) -> Response:
    """Close the mailbox."""
    if not await boxes.delete(_checked(mailbox_id, "a")):
        raise _gone()
    return Response(204, b"")


class OfferAnswer(msgspec.Struct):
    create_available: bool


class CreateBody(msgspec.Struct, frozen=True):
    data: str


class CreatedAnswer(msgspec.Struct):
    id: str
    sequence_token: str
    expires_in_ms: int


class ReplaceBody(msgspec.Struct, frozen=True):
    sequence_token: str
    data: str


class ReplacedAnswer(msgspec.Struct):
    sequence_token: str


class MailboxAnswer(msgspec.Struct):
    data: str
    sequence_token: str
    expires_in_ms: int


@endpoint("GET", _2025, auth=Auth.NONE, rate="read")
async def get_rendezvous_offer() -> OfferAnswer:
    """Whether mailboxes can be opened here."""
    return OfferAnswer(True)


@endpoint("POST", _2025, auth=Auth.NONE, rate="login", max_body=_MAX_BODY)
async def create_rendezvous(body: CreateBody, boxes: RendezvousStore) -> CreatedAnswer:
    """Open a mailbox."""
    mailbox_id = _new_id("b")
    box = await boxes.create(mailbox_id, _bytes_of(body.data))
    return CreatedAnswer(mailbox_id, box.token, LIFETIME_MS)


@endpoint("GET", f"{_2025}/{{mailbox_id}}", auth=Auth.NONE, rate="read")
async def read_rendezvous(
    request: Request, mailbox_id: str, boxes: RendezvousStore, settings: RendezvousSettings
) -> MailboxAnswer:
    """What the mailbox holds."""
    _check_destination(request)
    box = _found(await boxes.get(_checked(mailbox_id, "b")))
    return MailboxAnswer(box.data.decode(), box.token, settings.left_ms(box))


@endpoint("PUT", f"{_2025}/{{mailbox_id}}", auth=Auth.NONE, rate="read", max_body=_MAX_BODY)
async def replace_rendezvous(
    mailbox_id: str, body: ReplaceBody, boxes: RendezvousStore
) -> ReplacedAnswer:
    """Replace what the mailbox holds if it is still what the client saw."""
    data = _bytes_of(body.data)
    box = _found(await boxes.replace(_checked(mailbox_id, "b"), body.sequence_token, data))
    # The same data: this request wrote it, or the one that it repeats.
    if box.data != data:
        raise MatrixError(
            409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE", "The other side wrote meanwhile."
        )
    return ReplacedAnswer(box.token)


@endpoint("DELETE", f"{_2025}/{{mailbox_id}}", auth=Auth.NONE, rate="read")
async def close_rendezvous(mailbox_id: str, boxes: RendezvousStore) -> Empty:
    """Close the mailbox."""
    if not await boxes.delete(_checked(mailbox_id, "b")):
        raise _gone()
    return EMPTY


def _new_id(kind: str) -> str:
    return kind + secrets.token_urlsafe(18)


def _checked(mailbox_id: str, kind: str) -> str:
    if not mailbox_id.startswith(kind) or not mailbox_id.isascii() or len(mailbox_id) > 64:
        raise _gone()
    return mailbox_id


def _found(box: Mailbox | None) -> Mailbox:
    if box is None:
        raise _gone()
    return box


def _gone() -> MatrixError:
    return not_found("There is no such rendezvous.")


def _text_of(request: Request) -> bytes:
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != "text/plain":
        raise invalid_param("The Content-Type must be text/plain.")
    return _bounded(request.body)


def _bytes_of(text: str) -> bytes:
    return _bounded(text.encode())


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise too_large(f"A rendezvous holds at most {MAX_BYTES} bytes.")
    return data


def _etag(box: Mailbox) -> str:
    return f'"{box.token}"'


def _tags(header: str | None) -> set[str]:
    return {tag.strip() for tag in (header or "").split(",")}


def _headers(box: Mailbox) -> dict[str, str]:
    return {
        "ETag": _etag(box),
        "Expires": formatdate(box.expires_ms / 1000, usegmt=True),
        "Last-Modified": formatdate(box.modified_ms / 1000, usegmt=True),
        "Cache-Control": "no-store, no-transform",
        "Pragma": "no-cache",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }


def _check_destination(request: Request) -> None:
    """Browsers say what for they ask: nobody shall be made to look at what strangers wrote."""
    refused = (
        request.header("sec-fetch-dest") not in (None, "empty")
        or request.header("sec-fetch-mode") == "navigate"
        or request.header("sec-fetch-user") == "?1"
        or request.header("sec-fetch-site") == "none"
    )
    if refused:
        raise forbidden("A rendezvous is not a page to look at.")


ENDPOINTS = [
    post_rendezvous,
    get_rendezvous,
    put_rendezvous,
    delete_rendezvous,
    get_rendezvous_offer,
    create_rendezvous,
    read_rendezvous,
    replace_rendezvous,
    close_rendezvous,
]
