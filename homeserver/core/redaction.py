"""Redaction: what of an event stays when it is redacted (Room Versions, "Redactions")."""

from __future__ import annotations

from homeserver.core.room_versions import RoomVersion
from homeserver.core.types import JsonObject


def redact(pdu: JsonObject, version: RoomVersion) -> JsonObject:
    """The redacted form of an event in federation form; `pdu` itself stays as it is.

    Everything that `version` does not protect goes, `unsigned` included.
    """
    kept = version.redaction_keys
    redacted = {key: value for key, value in pdu.items() if key in kept}
    content = pdu.get("content")
    redacted["content"] = (
        redact_content(str(pdu.get("type")), content, version) if isinstance(content, dict) else {}
    )
    return redacted


def redact_content(event_type: str, content: JsonObject, version: RoomVersion) -> JsonObject:
    """The redacted `content` of an event of this type, as a new object."""
    kept = version.redaction_content.get(event_type, frozenset())
    if kept is None:
        return dict(content)
    redacted = {key: value for key, value in content.items() if key in kept}
    if event_type == "m.room.member" and version.redaction_keeps_third_party_signed:
        invite = content.get("third_party_invite")
        if isinstance(invite, dict) and "signed" in invite:
            redacted["third_party_invite"] = {"signed": invite["signed"]}
    return redacted
