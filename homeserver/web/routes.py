"""A trie of path templates.

Paths are split before anything is percent-decoded, so that `%2F` never splits one
(client-server API, "API Standards"). A literal segment goes before a parameter. Parameters do
not take an empty segment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from homeserver.core.errors import MatrixError
from homeserver.web.endpoint import template_parameters
from homeserver.web.schema import decode_percent

Target = TypeVar("Target")


class Route(NamedTuple, Generic[Target]):
    """Where a request goes, with its decoded path parameters."""

    target: Target
    parameters: dict[str, str]


class Match(Generic[Target]):
    """What was found for a method and path: a target, or the methods that are allowed."""

    __slots__ = ("_names", "_values", "allowed", "target")

    def __init__(
        self,
        target: Target | None,
        names: tuple[str, ...] = (),
        values: tuple[str, ...] = (),
        allowed: frozenset[str] = frozenset(),
    ) -> None:
        self.target = target
        self.allowed = allowed
        self._names = names
        self._values = values

    def decode(self) -> dict[str, str]:
        """The path parameters, percent-decoded once. Raises MatrixError (400)."""
        if not self._names:
            return {}
        return {
            name: "/".join(map(decode_percent, value.split("/")))
            if "/" in value
            else decode_percent(value)
            for name, value in zip(self._names, self._values, strict=True)
        }


class _Node(Generic[Target]):
    __slots__ = ("literal", "methods", "parameter", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node[Target]] = {}
        self.parameter: _Node[Target] | None = None
        self.rest: _Node[Target] | None = None
        self.methods: dict[str, tuple[Target, tuple[str, ...]]] = {}


class RouteTable(Generic[Target]):
    """Finds the target of a method and path."""

    __slots__ = ("_exact", "_root")

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._exact: dict[tuple[str, str], Match[Target]] = {}
        """What is found without parameters: the most literal way goes before all others."""

    def add(self, method: str, template: str, target: Target) -> None:
        """Raises ValueError if the same method and path already go somewhere."""
        node = self._root
        for segment in template[1:].split("/"):
            if segment.endswith("*}"):
                node.rest = node.rest or _Node()
                node = node.rest
            elif segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
        if method in node.methods:
            raise ValueError(f"{method} {template} is declared twice")
        names = template_parameters(template)
        node.methods[method] = (target, names)
        if not names:
            self._exact[method, template] = Match(target)

    def find(self, method: str, path: str) -> Match[Target]:
        """The match for a path as sent, not decoded."""
        return (
            self._exact.get((method, path))
            or self._only_way(method, path)
            or self._first_way(method, path)
        )

    def _only_way(self, method: str, path: str) -> Match[Target] | None:
        """The match where no segment could mean two things, which is so for most paths."""
        node = self._root
        values: list[str] = []
        segments = path.split("/")
        if segments[0]:
            return None
        for segment in segments[1:]:
            literal, parameter = node.literal.get(segment), node.parameter
            if node.rest is not None or (literal is not None and parameter is not None):
                return None
            if literal is not None:
                node = literal
            elif parameter is None or not segment or ("%" in segment and node.literal):
                return None
            else:
                node = parameter
                values.append(segment)
        found = node.methods.get(method)
        return None if found is None else Match(found[0], found[1], tuple(values))

    def _first_way(self, method: str, path: str) -> Match[Target]:
        """The match by trying all that the segments could mean, the most literal first."""
        allowed: set[str] = set()
        if path.startswith("/"):
            for node, values in _walk(self._root, path[1:].split("/"), 0, ()):
                found = node.methods.get(method)
                if found is not None:
                    return Match(found[0], found[1], values)
                allowed.update(node.methods)
        return Match(None, allowed=frozenset(allowed))


def _walk(
    node: _Node[Target], segments: list[str], position: int, values: tuple[str, ...]
) -> Iterator[tuple[_Node[Target], tuple[str, ...]]]:
    """All nodes that a path may mean, the most literal first."""
    if position == len(segments):
        yield node, values
        return
    segment = segments[position]
    literal = node.literal.get(_literal(segment))
    if literal is not None:
        yield from _walk(literal, segments, position + 1, values)
    if node.parameter is not None and segment:
        yield from _walk(node.parameter, segments, position + 1, (*values, segment))
    if node.rest is not None:
        yield node.rest, (*values, "/".join(segments[position:]))


def _literal(segment: str) -> str:
    if "%" not in segment:
        return segment
    try:
        return decode_percent(segment)
    except MatrixError:
        return segment
