"""The client form of stored events as text, put together without parsing what they say.

A stored event is JSON that this server has written. Most of its client form is pieces of that text:
the content is copied as it is. What depends on the reader and the time is filled in between two
parts that are made once for each event: `…"unsigned":{"age":` and `}}`.

`client_form` says nothing of events whose client form needs more than that: redactions, redacted
events, sticky ones. `homeserver.core.client_format.to_client` shows those; both give the same.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import orjson

from homeserver.core.sticky import KEY as STICKY


def membership_text(membership: str) -> bytes:
    """What follows the age where the reader's membership at the event is shown."""
    return b',"membership":%b' % orjson.dumps(membership)


JOINED = membership_text("join")

_ABSENT = msgspec.Raw(b"")
_END = b"}}"


class ClientForm(NamedTuple):
    """An event in client form: `head`, the age at the time of the answer, what else is unsigned
    (`JOINED`, `transaction_id`), `tail`. The brace that it begins with is not in `head`."""

    head: bytes
    ts: int
    """`origin_server_ts`."""
    tail: bytes


FORM_BYTES = 200
"""What a `ClientForm` takes in memory besides its texts, about."""


class _Stored(msgspec.Struct, gc=False):
    """What is shown of the federation form. `Raw` parts are not looked into."""

    content: msgspec.Raw
    origin_server_ts: int
    sender: msgspec.Raw
    type: msgspec.Raw
    state_key: msgspec.Raw = _ABSENT
    sticky: msgspec.Raw = msgspec.field(default=_ABSENT, name=STICKY)


class _Membership(msgspec.Struct, gc=False):
    membership: str | None = None


class _Member(msgspec.Struct, gc=False):
    content: _Membership


_decode_member = msgspec.json.Decoder(_Member).decode
_decode = msgspec.json.Decoder(_Stored).decode


def client_form(
    text: str | bytes, event_id: str, *, replaces_state: str | None = None
) -> ClientForm | None:
    """The client form of an event that was not redacted; None: it is not only pieces of the text.

    Parameters: `text`, its stored form; `replaces_state`, ID of the event that a state event
    replaced. `prev_content` is not shown.
    """
    try:
        stored = _decode(text)
    except msgspec.ValidationError:
        return None
    kind = bytes(stored.type)
    if kind == b'"m.room.redaction"' or stored.sticky is not _ABSENT:
        return None
    key = bytes(stored.state_key)
    is_state = key not in (b"", b"null")
    head = b'"content":%b,"event_id":%b,"origin_server_ts":%d,"sender":%b,%b"type":%b,%b' % (
        stored.content,
        orjson.dumps(event_id),
        stored.origin_server_ts,
        stored.sender,
        b'"state_key":%b,' % key if is_state else b"",
        kind,
        b'"unsigned":{"age":',
    )
    tail = _END
    if is_state and replaces_state is not None:
        tail = b',"replaces_state":%b}}' % orjson.dumps(replaces_state)
    # As ClientForm(…), in a third of the time.
    return ClientForm._make((head, stored.origin_server_ts, tail))


def opening(room_id: str | None) -> bytes:
    """What client forms begin with; None where the answer implies the room."""
    return b"{" if room_id is None else b'{"room_id":%b,' % orjson.dumps(room_id)


def transaction(txn_id: str) -> bytes:
    """What follows the age where the reader's device sent the event with a transaction ID."""
    return b',"transaction_id":%b' % orjson.dumps(txn_id)


def membership_in(text: str | bytes) -> str | None:
    """The membership in the stored form of a member event; None if it is no text."""
    try:
        return _decode_member(text).content.membership
    except msgspec.ValidationError:
        return None
