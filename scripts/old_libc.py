"""Lets a library built for a newer C library load on an older one.

Compilers of systems with glibc 2.38 name `strtol` and `sscanf` `__isoc23_strtol` and
`__isoc23_sscanf`, which differ in reading "0b101" only; nothing else keeps such a library from
systems with glibc 2.34, as Debian 12 is.
"""

from __future__ import annotations

import struct
from pathlib import Path

PREFIX = b"__isoc23_"
_SHT_DYNSYM, _SHT_VERSYM, _SHT_VERNEED = 11, 0x6FFFFFFF, 0x6FFFFFFE
_VER_FLG_WEAK = 2


def name_as_before(path: Path) -> int:
    """Name the C functions of a 64-bit ELF library as older C libraries do; how many.

    What versions are asked of a C library is made optional where nothing is left that needs it.
    """
    data = bytearray(path.read_bytes())
    sections = _sections(data)
    symbols, versions = _of_type(sections, _SHT_DYNSYM), _of_type(sections, _SHT_VERSYM)
    needs = _of_type(sections, _SHT_VERNEED)
    strings = sections[symbols[6]]
    numbers = _versions(data, needs, strings)
    found = [
        (symbol, index)
        for index in range(symbols[5] // 24)
        for symbol in [symbols[4] + 24 * index]
        if _text(data, strings, struct.unpack_from("<I", data, symbol)[0]).startswith(PREFIX)
    ]
    for symbol, index in found:
        (name,) = struct.unpack_from("<I", data, symbol)
        struct.pack_into("<I", data, symbol, name + len(PREFIX))
        struct.pack_into("<H", data, versions[4] + 2 * index, numbers[b"GLIBC_2.2.5"][0])
    if found:
        place = numbers[b"GLIBC_2.38"][1]
        (flags,) = struct.unpack_from("<H", data, place + 4)
        struct.pack_into("<H", data, place + 4, flags | _VER_FLG_WEAK)
        path.write_bytes(data)
    return len(found)


def _sections(data: bytearray) -> list[tuple[int, ...]]:
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    return [struct.unpack_from("<IIQQQQIIQQ", data, offset + size * n) for n in range(count)]


def _of_type(sections: list[tuple[int, ...]], kind: int) -> tuple[int, ...]:
    return next(section for section in sections if section[1] == kind)


def _text(data: bytearray, strings: tuple[int, ...], offset: int) -> bytes:
    start = strings[4] + offset
    return bytes(data[start : data.index(0, start)])


def _versions(
    data: bytearray, needs: tuple[int, ...], strings: tuple[int, ...]
) -> dict[bytes, tuple[int, int]]:
    """The versions asked of libc.so.6: number in the table of symbols, and place in the file."""
    found = {}
    library = needs[4]
    for _ in range(needs[7]):
        _, count, file, first, following = struct.unpack_from("<HHIII", data, library)
        entry = library + first
        for _ in range(count):
            _, _, number, name, step = struct.unpack_from("<IHHII", data, entry)
            if _text(data, strings, file) == b"libc.so.6":
                found[_text(data, strings, name)] = number, entry
            entry += step
        library += following
    return found
