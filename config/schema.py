"""JSON Schema of the configuration, derived from the model.

It accepts what the loader accepts, except for rules of meaning (`check` of an option, IP ranges,
rules between options), which JSON Schema cannot say.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from config.describe import (
    MISSING,
    Option,
    choices,
    is_section,
    item_type,
    options_of,
    without_none,
)
from config.model import Config
from config.types import Duration, Size
from homeserver.core.types import JsonObject


def schema() -> JsonObject:
    """The JSON Schema (2020-12) of a configuration file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_section(Config)}


def _section(section: type) -> JsonObject:
    properties: JsonObject = {}
    required: list[str] = []
    either: list[JsonObject] = []
    for option in options_of(section).values():
        properties[option.name] = _option(option)
        names = [option.name]
        if option.notes.secret:
            names.append(f"{option.name}_file")
            properties[names[1]] = {
                "type": "string",
                "description": f"A file that holds `{option.name}`.",
            }
        if option.required and len(names) == 1:
            required.append(option.name)
        elif option.required:
            either.append({"oneOf": [{"required": [name]} for name in names]})
    result: JsonObject = {
        "type": "object",
        "description": (section.__doc__ or "").strip(),
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        result["required"] = required
    if either:
        result["allOf"] = either
    if not required and not either:
        result["type"] = ["object", "null"]
    return result


def _option(option: Option) -> JsonObject:
    notes = option.notes
    result = _type(option.type)
    for word, limit in (("minimum", notes.minimum), ("maximum", notes.maximum)):
        if limit is not None:
            result[word] = limit
    result["description"] = notes.doc
    inner, _ = without_none(option.type)
    if option.default is not MISSING and not is_section(inner):
        result["default"] = plain(option.default)
    return result


def _type(type_: Any) -> JsonObject:
    inner, optional = without_none(type_)
    if (values := choices(inner)) is not None:
        result: JsonObject = {"enum": [*values, None] if optional else list(values)}
        return result
    if (item := item_type(inner)) is not None:
        result = {"type": "array", "items": _type(item)}
    elif is_section(inner):
        result = _section(inner)
    elif inner is Duration:
        result = {"type": "string", "pattern": Duration.PATTERN}
    elif inner is Size:
        result = {"type": ["string", "integer"], "pattern": Size.PATTERN, "minimum": 0}
    else:
        names = {bool: "boolean", int: "integer", float: "number"}
        result = {"type": names.get(inner, "string")}
    if optional:
        given = result["type"]
        result["type"] = [*([given] if isinstance(given, str) else given), "null"]
        result["type"] = list(dict.fromkeys(result["type"]))
    return result


def plain(value: Any) -> Any:
    """A value of the model as YAML and JSON write it."""
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    model: type = type(value)
    if is_section(model):
        return {
            option.name: plain(getattr(value, option.attribute))
            for option in options_of(model).values()
            if getattr(value, option.attribute) != option.default
        }
    if isinstance(value, Duration | Size | Path | ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value)
    return value
