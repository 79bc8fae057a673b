"""Which texts of events may be searched (client-server API, "Server Side Search")."""

from __future__ import annotations

from typing import Any

KINDS = {"content.body": "b", "content.name": "n", "content.topic": "t"}
"""The keys that may be searched, and the kinds of text that the table knows them by."""
TYPES = ("m.room.message", "m.room.name", "m.room.topic")


def text_of(event_type: str, state_key: str | None, content: Any) -> tuple[str, str] | None:
    """Kind and text of what is to be found of an event."""
    if not isinstance(content, dict):
        return None
    if event_type == "m.room.message" and state_key is None:
        return _text("b", content.get("body"))
    if event_type == "m.room.name" and state_key == "":
        return _text("n", content.get("name"))
    if event_type == "m.room.topic" and state_key == "":
        return _text("t", content.get("topic"), *_plain(content.get("m.topic")))
    return None


def _plain(topic: Any) -> list[Any]:
    """The plain text of a rich topic."""
    forms = topic.get("m.text") if isinstance(topic, dict) else None
    return [
        form.get("body")
        for form in (forms if isinstance(forms, list) else ())
        if isinstance(form, dict) and form.get("mimetype", "text/plain") == "text/plain"
    ]


def _text(kind: str, *parts: Any) -> tuple[str, str] | None:
    texts = dict.fromkeys(part for part in parts if isinstance(part, str) and part)
    return (kind, "\n".join(texts)) if texts else None
