"""Room state as a persistent, content-addressed map of integers.

A state is a map from `state_key_nid` to `event_nid`, both signed 64-bit integers. It is kept as
a tree of immutable nodes, each named by a hash of its bytes, so that two states share all that
they have in common, and equal states have equal roots.

The rules:

1. A map of at most 32 entries is one leaf. A larger one is a branch of up to 32 children: an
   entry belongs to the child that the next five bits of its path select.
2. The path of a key is the key times an odd constant modulo 2^64. That is a bijection, so any
   two keys part after at most 13 levels, and neighbouring keys spread evenly.
3. So the shape follows from the content alone, whatever changes led to it. A branch that falls
   to 32 entries becomes a leaf again; branches carry their number of entries to notice this.
4. The empty map has the root `EMPTY`, for which there is no node to store.

`homeserver.core.state_nodes` has their encoding.

Nodes are read through `load(hashes)`, which is called once per level, with at most `LOAD_BATCH`
distinct hashes at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping

from homeserver.core.state_nodes import (
    BITS,
    BRANCH,
    EMPTY,
    HALVES,
    HEADER,
    KEY,
    LEAF,
    LEAF_ENTRIES,
    LEAF_FORMATS,
    LOAD_BATCH,
    MASK,
    MULTIPLIER,
    TOP_SHIFT,
    Entries,
    Load,
    MalformedNode,
    MissingNode,
    NodeStore,
    StateTreeError,
    child_of,
    children_of,
    entries_of,
    hash_node,
    leaf_entries,
    load_nodes,
    size_of,
)

__all__ = [
    "EMPTY",
    "Load",
    "MalformedNode",
    "MissingNode",
    "NodeStore",
    "StateTreeError",
    "below",
    "build",
    "count",
    "diff",
    "get",
    "get_many",
    "items",
    "update",
    "values",
]


def get(root: bytes, keys: Iterable[int], load: Load) -> dict[int, int]:
    """Return the entries of `keys` that the map has.

    Raises MissingNode or MalformedNode.
    """
    return get_many([root], keys, load)[root]


def get_many(
    roots: Collection[bytes], keys: Iterable[int], load: Load
) -> dict[bytes, dict[int, int]]:
    """Return, by root, the entries of `keys` that each of several maps has.

    The maps are read level by level together. Raises MissingNode or MalformedNode.
    """
    found: dict[bytes, dict[int, int]] = {root: {} for root in roots}
    paths = [(_path(key), key) for key in keys]
    shift = TOP_SHIFT
    # What is wanted below each node of this level, as (path, key, where it goes).
    wanted = {
        root: [(path, key, entries) for path, key in paths] for root, entries in found.items()
    }
    while wanted:
        nodes = load_nodes(wanted, load)
        below: dict[bytes, list[tuple[int, int, dict[int, int]]]] = {}
        for node_hash, searches in wanted.items():
            node = nodes[node_hash]
            if node[0] == LEAF:
                entries = entries_of(node)
                for _, key, into in searches:
                    if key in entries:
                        into[key] = entries[key]
                continue
            for search in searches:
                child = child_of(node, (search[0] >> shift) & 31)
                if child is not None:
                    below.setdefault(child, []).append(search)
        wanted = below
        shift -= BITS
    return found


def count(root: bytes, load: Load) -> int:
    """Return the number of entries of the map; reads one node."""
    node = load_nodes([root], load)[root]
    return size_of(node)


def items(root: bytes, load: Load) -> Iterator[tuple[int, int]]:
    """Yield every (key, value) of the map, in no particular order.

    Memory stays bounded by the batch size, whatever the size of the map.
    Raises MissingNode or MalformedNode.
    """
    waiting = [root]
    while waiting:
        batch = waiting[-LOAD_BATCH:]
        del waiting[-LOAD_BATCH:]
        for node in load_nodes(batch, load).values():
            if node[0] == LEAF:
                yield from entries_of(node).items()
            else:
                waiting.extend(children_of(node).values())


def values(root: bytes, load: Load) -> list[int]:
    """Return all values of the map, in no particular order.

    Raises MissingNode or MalformedNode.
    """
    found: list[int] = []
    level = [root]
    while level:
        branches: list[bytes] = []
        for node in load_nodes(level, load).values():
            if node[0] == LEAF:
                size = len(node) >> 4
                found += HALVES[size].unpack_from(node, 1 + 8 * size)
            else:
                branches += children_of(node).values()
        level = branches
    return found


def below(hashes: Collection[bytes], load: Load) -> set[bytes]:
    """Return the hashes of the nodes that nodes refer to directly.

    Raises MissingNode, MalformedNode.
    """
    nodes = load_nodes(hashes, load)
    return {
        child
        for node_hash in hashes
        if nodes[node_hash][0] == BRANCH
        for child in children_of(nodes[node_hash]).values()
    }


def build(mapping: Mapping[int, int]) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the root of the tree of `mapping`, and its nodes by hash.

    Raises ValueError for a number outside 64 bits.
    """
    nodes: dict[bytes, bytes] = {}
    return _write(dict(mapping), TOP_SHIFT, nodes), nodes


def update(
    root: bytes, changes: Mapping[int, int | None], load: Load
) -> tuple[bytes, dict[bytes, bytes]]:
    """Apply changes to a map; the value None removes a key.

    Returns the new root, and the nodes on the changed paths by hash (none if nothing changed).
    Raises MissingNode or MalformedNode, ValueError for a number outside 64 bits.
    """
    if not changes:
        return root, {}
    levels = _descend(root, changes, load)
    nodes: dict[bytes, bytes] = {}
    shift = TOP_SHIFT - BITS * (len(levels) - 1)
    for level in reversed(levels):
        for step in level:
            step.apply()
        _collapse([step for step in level if step.collapses()], load)
        for step in level:
            step.write_children(shift, nodes)
        shift += BITS
    return levels[0][0].write(TOP_SHIFT, nodes), nodes


def diff(a: bytes, b: bytes, load: Load) -> dict[int, tuple[int | None, int | None]]:
    """Return what differs between two maps: key to (value in a, value in b), None for absent.

    Reads only nodes that the two do not share. Raises MissingNode or MalformedNode.
    """
    differences: dict[int, tuple[int | None, int | None]] = {}
    shift = TOP_SHIFT
    # A side of a pair is the hash of a node, or entries where the other side is deeper.
    pairs: list[tuple[bytes | Entries, bytes | Entries]] = [(a, b)] if a != b else []
    while pairs:
        nodes = load_nodes(
            [side for pair in pairs for side in pair if isinstance(side, bytes)], load
        )
        below: list[tuple[bytes | Entries, bytes | Entries]] = []
        for left, right in pairs:
            if _compare_leaves(left, right, nodes, differences):
                continue
            left_entries = _side_entries(left, nodes)
            right_entries = _side_entries(right, nodes)
            if left_entries is not None and right_entries is not None:
                _compare(left_entries, right_entries, differences)
                continue
            left_children = _side_children(left, left_entries, nodes, shift)
            right_children = _side_children(right, right_entries, nodes, shift)
            for slot in left_children.keys() | right_children.keys():
                left_child = left_children.get(slot, EMPTY)
                right_child = right_children.get(slot, EMPTY)
                if left_child != right_child:
                    below.append((left_child, right_child))
        pairs = below
        shift -= BITS
    return differences


class _Step:
    """One node that an update passes through."""

    __slots__ = (
        "after",
        "before",
        "changed",
        "changes",
        "children",
        "entries",
        "fresh",
        "hash",
        "visited",
    )

    def __init__(self, node_hash: bytes, changes: list[tuple[int, int, int | None]]) -> None:
        self.hash = node_hash
        self.changes = changes  # (path, key, new value)
        self.before = 0  # entries below, before and after
        self.after = 0
        self.changed = False
        self.entries: Entries | None = None  # of a leaf
        self.children: dict[int, bytes] = {}  # of a branch
        self.visited: dict[int, _Step] = {}  # children that the update passes through
        self.fresh: dict[int, Entries] = {}  # entries for children that did not exist

    def read(self, node: bytes, shift: int) -> Iterable[_Step]:
        """Take in the node; return the steps below it."""
        self.before = size_of(node)
        if node[0] == LEAF:
            self.entries = entries_of(node)
            return ()
        self.children = children_of(node)
        below: dict[int, list[tuple[int, int, int | None]]] = {}
        for change in self.changes:
            slot = (change[0] >> shift) & 31
            if slot in self.children:
                below.setdefault(slot, []).append(change)
            elif change[2] is not None:
                self.fresh.setdefault(slot, {})[change[1]] = change[2]
        self.visited = {slot: _Step(self.children[slot], part) for slot, part in below.items()}
        return self.visited.values()

    def apply(self) -> None:
        """Work out the content after the update; the steps below have done so."""
        if self.entries is not None:
            for _, key, value in self.changes:
                if self.entries.get(key) == value:
                    continue
                self.changed = True
                if value is None:
                    del self.entries[key]
                else:
                    self.entries[key] = value
            self.after = len(self.entries)
            return
        self.after = self.before + sum(len(entries) for entries in self.fresh.values())
        self.changed = bool(self.fresh)
        for child in self.visited.values():
            self.after += child.after - child.before
            self.changed = self.changed or child.changed

    def collapses(self) -> bool:
        """Say whether this branch has become small enough for a leaf."""
        return self.entries is None and self.after <= LEAF_ENTRIES

    def write_children(self, shift: int, nodes: dict[bytes, bytes]) -> None:
        """Write the changed children of a branch that stays one."""
        if self.entries is not None:
            return
        for slot, child in self.visited.items():
            if child.changed:
                node_hash = child.write(shift - BITS, nodes)
                if node_hash == EMPTY:
                    del self.children[slot]
                else:
                    self.children[slot] = node_hash
        for slot, entries in self.fresh.items():
            self.children[slot] = _write(entries, shift - BITS, nodes)

    def write(self, shift: int, nodes: dict[bytes, bytes]) -> bytes:
        """Write this node, and return its hash."""
        if not self.changed:
            return self.hash
        if self.entries is not None:
            return _write(self.entries, shift, nodes)
        return _write_branch(self.after, self.children, nodes)


def _descend(root: bytes, changes: Mapping[int, int | None], load: Load) -> list[list[_Step]]:
    """Read the nodes that changes pass through, level by level."""
    level = [_Step(root, [(_path(key), key, value) for key, value in changes.items()])]
    levels = []
    shift = TOP_SHIFT
    while level:
        levels.append(level)
        nodes = load_nodes([step.hash for step in level], load)
        level = [below for step in level for below in step.read(nodes[step.hash], shift)]
        shift -= BITS
    return levels


def _collapse(steps: list[_Step], load: Load) -> None:
    """Turn branches of one level into leaves. Their children are all leaves by now."""
    if not steps:
        return
    untouched = [
        node_hash
        for step in steps
        for slot, node_hash in step.children.items()
        if slot not in step.visited
    ]
    nodes = load_nodes(untouched, load)
    for step in steps:
        entries: Entries = {}
        for slot, node_hash in step.children.items():
            child = step.visited.get(slot)
            if child is None:
                entries.update(leaf_entries(node_hash, nodes[node_hash]))
            elif child.entries is not None:
                entries.update(child.entries)
            else:
                raise MalformedNode(child.hash, "its number of entries is wrong")
        for fresh in step.fresh.values():
            entries.update(fresh)
        if len(entries) != step.after:
            raise MalformedNode(step.hash, "its number of entries is wrong")
        step.entries = entries


def _path(key: int) -> int:
    """Return the 65 bits by which a key is filed."""
    return ((key * MULTIPLIER) & MASK) << 1


def _split(entries: Entries, shift: int) -> dict[int, Entries]:
    """Part entries by the child that they belong to."""
    parts: dict[int, Entries] = {}
    for key, value in entries.items():
        slot = ((((key * MULTIPLIER) & MASK) << 1) >> shift) & 31
        part = parts.get(slot)
        if part is None:
            parts[slot] = {key: value}
        else:
            part[key] = value
    return parts


def _write(entries: Entries, shift: int, nodes: dict[bytes, bytes]) -> bytes:
    """Write the subtree of entries into `nodes`, and return its hash."""
    size = len(entries)
    if size > LEAF_ENTRIES:
        children = {
            slot: _write(part, shift - BITS, nodes) for slot, part in _split(entries, shift).items()
        }
        return _write_branch(size, children, nodes)
    if not size:
        return EMPTY
    keys = sorted(entries)
    try:
        node = LEAF_FORMATS[size].pack(b"L", *keys, *[entries[key] for key in keys])
    except struct.error:
        raise ValueError("state tree keys and values are signed 64-bit integers") from None
    node_hash = hash_node(node)
    nodes[node_hash] = node
    return node_hash


def _write_branch(size: int, children: dict[int, bytes], nodes: dict[bytes, bytes]) -> bytes:
    """Write one branch into `nodes`, and return its hash."""
    bitmap = 0
    for slot in children:
        bitmap |= 1 << slot
    node = HEADER.pack(b"B", size, bitmap) + b"".join([children[slot] for slot in sorted(children)])
    node_hash = hash_node(node)
    nodes[node_hash] = node
    return node_hash


def _side_entries(side: bytes | Entries, nodes: dict[bytes, bytes]) -> Entries | None:
    """Return the entries of a side of a comparison, None where it is a branch."""
    if isinstance(side, dict):
        return side
    node = nodes[side]
    return entries_of(node) if node[0] == LEAF else None


def _side_children(
    side: bytes | Entries, entries: Entries | None, nodes: dict[bytes, bytes], shift: int
) -> Mapping[int, bytes | Entries]:
    """Return the children of a side, parting its entries where it is a leaf."""
    if entries is not None:
        return _split(entries, shift)
    assert isinstance(side, bytes)
    return children_of(nodes[side])


def _compare_leaves(
    left: bytes | Entries,
    right: bytes | Entries,
    nodes: dict[bytes, bytes],
    differences: dict[int, tuple[int | None, int | None]],
) -> bool:
    """As `_compare`, for two leaves with the same keys, as most are; False if they are not."""
    if isinstance(left, dict) or isinstance(right, dict):
        return False
    one, other = nodes[left], nodes[right]
    size = len(one) >> 4
    middle = 1 + 8 * size
    # The keys come first in a leaf, behind the letter that says that it is one.
    if one[0] != LEAF or one[:middle] != other[:middle] or len(one) != len(other):
        return False
    half = HALVES[size]
    pairs = zip(half.unpack_from(one, middle), half.unpack_from(other, middle), strict=True)
    for place, pair in enumerate(pairs):
        if pair[0] != pair[1]:
            differences[KEY.unpack_from(one, 1 + 8 * place)[0]] = pair
    return True


def _compare(
    left: Entries, right: Entries, differences: dict[int, tuple[int | None, int | None]]
) -> None:
    """Add the differences between two sets of entries."""
    for key, _ in left.items() ^ right.items():
        differences[key] = (left.get(key), right.get(key))
