"""The commented sample configuration, derived from the model.

`python -m config.sample` writes it to standard output; `sample_config.yaml` is a copy, which a
test keeps current.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from config.describe import Option, is_section, item_type, options_of, without_none
from config.model import Config
from config.schema import plain

_WIDTH = 96

_HEAD = """\
# Configuration of Hearth, a Matrix homeserver.
#
# Everything but server_name has the default shown here; take away the # to change a line.
# Lengths of time have a unit (500ms, 10s, 5m, 1h, 7d), sizes may have one (64K, 50M, 1G).
# A secret may be kept in a file of its own: give its name with _file at the end, for example
# shared_secret_file. `hearth config check` tells whether the file is right.
"""


def sample(server_name: str = "example.org") -> str:
    """The text of a configuration for `server_name`, every other option commented out."""
    parts = [_HEAD]
    for option in options_of(Config).values():
        if option.required:
            parts.append(
                "\n".join([*_comment(option.notes.doc), f"{option.name}: {_flow(server_name)}"])
            )
        else:
            parts.append("\n".join([*_comment(_doc(option)), *_commented(_option(option))]))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def _doc(option: Option) -> str:
    return option.notes.doc + (" Not used yet by this version." if option.notes.not_yet else "")


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=indent + "# ", subsequent_indent=indent + "# "
    )


def _commented(lines: Iterator[str]) -> list[str]:
    return [f"#{line}" for line in lines]


def _option(option: Option, indent: str = "") -> Iterator[str]:
    """The lines of one option with its default, or an example where there is none."""
    inner, _ = without_none(option.type)
    name = f"{indent}{option.name}:"
    if is_section(inner) and option.notes.example is None and not _is_short(inner):
        lines = list(_section(inner, indent + "  "))
        yield name if lines else f"{name} {{}}"
        yield from lines
    elif option.notes.example is not None and "\n" in option.notes.example:
        yield name
        yield from (f"{indent}  {line}" for line in option.notes.example.splitlines())
    elif option.required or option.default is None:
        yield f"{name} {option.notes.example or 'null'}"
    elif item_type(inner) is not None and option.default:
        yield from _items(name, plain(option.default), indent)
    else:
        yield f"{name} {option.notes.example or _flow(plain(option.default))}"


def _section(section: type, indent: str) -> Iterator[str]:
    for option in options_of(section).values():
        yield from _comment(_doc(option), indent)
        yield from _option(option, indent)


def _is_short(section: type) -> bool:
    """Whether a section is clearer on one line: a pair of numbers."""
    return all(option.type in (int, float) for option in options_of(section).values())


def _items(name: str, items: list[Any], indent: str) -> Iterator[str]:
    if all(isinstance(item, str) for item in items) and len(items) < 6:
        yield f"{name} {_flow(items)}"
        return
    yield name
    for item in items:
        yield f"{indent}  - {_flow(item)}"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    if isinstance(value, str) and _reads_as_itself(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _reads_as_itself(text: str) -> bool:
    """Whether a text needs no quotes."""
    if not all(c.isalnum() or c in "._-/:@" for c in text):
        return False
    try:
        return bool(yaml.safe_load(f"[{text}]") == [text])
    except yaml.YAMLError:
        return False


if __name__ == "__main__":
    sys.stdout.write(sample())
