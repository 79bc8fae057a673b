"""The nodes of state trees: how they are encoded, named, loaded and checked.

`homeserver.core.state_tree` has the rules. Encoding (big-endian): a leaf is `L`, the ascending
keys, their values; a branch is `B`, the number of entries below it, a bitmap of the children
present, their hashes in order.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from typing import Protocol, TypeAlias

FAN_OUT = 32
LEAF_ENTRIES = 32
HASH_BYTES = 16
LOAD_BATCH = 1024

BITS = 5
LEAF = 0x4C  # "L"
BRANCH = 0x42  # "B"
MULTIPLIER = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
# The path is read from its high bits, which a multiplication mixes best; 13 * 5 = 65, so one
# zero bit is added below.
TOP_SHIFT = 60
HEADER = struct.Struct(">cII")
_LEAF_LENGTHS = frozenset(range(17, 2 + 16 * LEAF_ENTRIES, 16))
KEY = struct.Struct(">q")
HALVES = [struct.Struct(f">{n}q") for n in range(LEAF_ENTRIES + 1)]
LEAF_FORMATS = [struct.Struct(f">c{2 * n}q") for n in range(LEAF_ENTRIES + 1)]

Load: TypeAlias = Callable[[Sequence[bytes]], Mapping[bytes, bytes]]
Entries: TypeAlias = dict[int, int]


class StateTreeError(Exception):
    """A state tree cannot be read."""


class MissingNode(StateTreeError):
    """A node that the tree refers to was not found. `hash` names it."""

    def __init__(self, node_hash: bytes) -> None:
        super().__init__(f"state tree node {node_hash.hex()} is missing")
        self.hash = node_hash


class MalformedNode(StateTreeError):
    """The bytes stored for a node are not a node. `hash` names it."""

    def __init__(self, node_hash: bytes, reason: str) -> None:
        super().__init__(f"state tree node {node_hash.hex()} is malformed: {reason}")
        self.hash = node_hash
        self.reason = reason


class NodeStore(Protocol):
    """Something that keeps nodes; its `load` is what the functions here take."""

    def load(self, hashes: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """Return the bytes of those nodes that exist, by hash."""


def hash_node(node: bytes) -> bytes:
    """Return the name of a node: the first 16 bytes of its SHA-256."""
    return sha256(node).digest()[:HASH_BYTES]


EMPTY: bytes = hash_node(b"L")
"""The root of the empty map."""


def load_nodes(hashes: Collection[bytes], load: Load) -> dict[bytes, bytes]:
    """Load nodes in batches, and check their form."""
    distinct = [node_hash for node_hash in dict.fromkeys(hashes) if node_hash != EMPTY]
    nodes: dict[bytes, bytes] = {EMPTY: b"L"}
    for start in range(0, len(distinct), LOAD_BATCH):
        batch = distinct[start : start + LOAD_BATCH]
        loaded = load(batch)
        for node_hash in batch:
            node = loaded.get(node_hash)
            if node is None:
                raise MissingNode(node_hash)
            if len(node) not in _LEAF_LENGTHS or node[0] != LEAF:
                _check_form(node_hash, node)
            nodes[node_hash] = node
    return nodes


def _check_form(node_hash: bytes, node: bytes) -> None:
    """Raise MalformedNode unless lengths and counts of a node agree."""
    length = len(node)
    if not length:
        raise MalformedNode(node_hash, "it is empty")
    if node[0] == LEAF:
        if length % 16 != 1 or not 1 < length <= 1 + 16 * LEAF_ENTRIES:
            raise MalformedNode(node_hash, f"a leaf cannot have {length} bytes")
    elif node[0] == BRANCH:
        if length < HEADER.size:
            raise MalformedNode(node_hash, f"a branch cannot have {length} bytes")
        _, size, bitmap = HEADER.unpack_from(node)
        if length != HEADER.size + HASH_BYTES * bitmap.bit_count():
            raise MalformedNode(node_hash, "the children do not match the bitmap")
        if size <= LEAF_ENTRIES:
            raise MalformedNode(node_hash, f"a branch cannot have {size} entries")
    else:
        raise MalformedNode(node_hash, f"unknown kind {node[0]:#04x}")


def size_of(node: bytes) -> int:
    """Return the number of entries below a node."""
    if node[0] == LEAF:
        return len(node) >> 4
    return int.from_bytes(node[1:5], "big")


def entries_of(node: bytes) -> Entries:
    """Return the entries of a leaf."""
    size = len(node) >> 4
    numbers = LEAF_FORMATS[size].unpack(node)
    return dict(zip(numbers[1 : size + 1], numbers[size + 1 :], strict=True))


def leaf_entries(node_hash: bytes, node: bytes) -> Entries:
    """Return the entries of a node that must be a leaf."""
    if node[0] != LEAF:
        raise MalformedNode(node_hash, "a branch stands where a leaf belongs")
    return entries_of(node)


def child_of(node: bytes, slot: int) -> bytes | None:
    """Return the hash of one child of a branch."""
    bitmap = int.from_bytes(node[5:9], "big")
    bit = 1 << slot
    if not bitmap & bit:
        return None
    start = 9 + HASH_BYTES * (bitmap & (bit - 1)).bit_count()
    return node[start : start + HASH_BYTES]


def children_of(node: bytes) -> dict[int, bytes]:
    """Return the hashes of the children of a branch by slot."""
    bitmap = int.from_bytes(node[5:9], "big")
    slots = [slot for slot in range(FAN_OUT) if bitmap >> slot & 1]
    return {
        slot: node[start : start + HASH_BYTES]
        for slot, start in zip(slots, range(9, len(node), HASH_BYTES), strict=True)
    }
