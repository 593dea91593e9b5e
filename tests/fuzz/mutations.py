"""Changes to inputs that keep enough of their structure to get far into a reader."""

from __future__ import annotations

import copy
import gzip
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Change = Callable[[bytes, Random], bytes]

NUMBERS = (
    "-1",
    "0",
    "1",
    "2",
    "65535",
    "99999999",
    "2147483648",
    "9223372036854775808",
    "1e30",
    "nan",
    "inf",
    "-0.0",
    "",
)
TEXTS = ("x" * 2000, "%n%s", "../../../etc/passwd", "$print(1)", "\x00", "\x1b[2J", "é" * 40, "@x", "none", "(1,2", "-")
JUNK = (*NUMBERS, *TEXTS)
VALUES = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 3000,
    "$1",
    "@a",
    "../a",
    [],
    {},
    [[]],
    [None] * 50,
)
NIFTI_FIELDS = {  # byte, struct format
    **{40 + 2 * k: "<h" for k in range(8)},
    **{70: "<h", 72: "<h", 123: "<b", 252: "<h", 254: "<h", 108: "<f", 112: "<f", 116: "<f"},
    **{76 + 4 * k: "<f" for k in range(8)},
    **{256 + 4 * k: "<f" for k in range(18)},
}


def bytes_(data: bytes, rng: Random, header: int = 2000) -> bytes:
    """Changes a few bytes, most of them near the start."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        if len(changed) < 8:
            break
        place = rng.randrange(min(header, len(changed)) if rng.random() < 0.7 else len(changed))
        kind = rng.randrange(7)
        if kind == 0:
            changed[place] = rng.randrange(256)
        elif kind == 1:
            changed[place : place + 2] = rng.choice((b"\xff\xff", b"\0\0", b"\xff\x7f", b"\0\x80"))
        elif kind == 2:
            changed[place : place + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\0\x80"))
        elif kind == 3:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 4:
            changed[place:place] = changed[place : place + rng.randrange(1, 200)]
        elif kind == 5:
            changed[place] ^= 1 << rng.randrange(8)
        else:
            del changed[place:]
    return bytes(changed)


def nifti(data: bytes, rng: Random) -> bytes:
    """Changes fields of a NIfTI-1 header, mostly to what lies at a bound."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        place, form = rng.choice([*NIFTI_FIELDS.items()])
        if form == "<f":
            value = rng.choice((0.0, -1.0, 1e30, float("nan"), float("inf"), 1e-30, 352.0, 2000.0, rng.uniform(-2, 2)))
        else:
            bits = 8 * struct.calcsize(form) - 1
            value = rng.choice((0, 1, -1, 2**bits - 1, -(2**bits), 2, 3, 4, 7, 16, 64, rng.randrange(2**bits)))
        struct.pack_into(form, changed, place, value)
    return bytes(changed)


def text(data: bytes, rng: Random, until: bytes = b"") -> bytes:
    """Changes words and lines of a text header, which ends at `until`."""
    end = data.find(until) if until else len(data)
    lines, body = data[:end].split(b"\n"), data[end:]
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        kind = rng.randrange(6)
        junk = rng.choice(JUNK).encode()
        if kind == 0:
            words = lines[place].split(b" ")
            words[rng.randrange(len(words))] = junk
            lines[place] = b" ".join(words)
        elif kind == 1 and len(lines) > 2:
            del lines[place]
        elif kind == 2:
            lines.insert(place, rng.choice(lines))
        elif kind == 3:
            key = lines[place].partition(b":" if b":" in lines[place] else b"=")
            lines[place] = key[0] + key[1] + b" " + junk
        elif kind == 4:
            lines.insert(place, junk * rng.choice((1, 20)) + rng.choice((b": 3", b" = 3", b":=3")))
        else:
            lines[place] = bytes_(lines[place], rng)
    return b"\n".join(lines) + body


def packed(change: Change) -> Change:
    """Applies a change inside of a gzip stream."""
    return lambda data, rng: gzip.compress(change(gzip.decompress(data), rng), 1)


def png(data: bytes, rng: Random) -> bytes:
    """Changes a chunk of a PNG and its checksum with it, else bytes."""
    place, chunks = 8, []
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    index = rng.randrange(len(chunks))
    kind = rng.randrange(4)
    name, content = chunks[index]
    if kind == 0:
        chunks[index] = (name, bytes_(content, rng))
    elif kind == 1:
        chunks.insert(
            index, (rng.choice((b"tRNS", b"PLTE", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"sBIT")), bytes_(content, rng))
        )
    elif kind == 2:
        chunks[0] = (
            b"IHDR",
            struct.pack(">II", rng.choice((0, 1, 64, 4096, 65535, 2**31)), 64)
            + bytes_(chunks[0][1][8:] + bytes(8), rng)[:5],
        )
    else:
        del chunks[index]
    whole = b"".join(
        len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")
        for name, content in chunks
    )
    return data[:8] + whole


def value(content: Any, rng: Random) -> Any:
    """Changes one value of what JSON holds: another value, a key less or more, deep nesting."""
    changed = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2))):
        parent, key = rng.choice([*_places(changed)])
        kind = rng.randrange(5)
        if kind == 0 and isinstance(parent, dict):
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[rng.choice(("x", "_target_", "", "path", "name"))] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 2:
            nested: Any = 1
            for _ in range(rng.choice((5, 3000))):
                nested = [nested] if rng.random() < 0.9 else {"a": nested}
            parent[key] = nested
        elif kind == 3 and isinstance(parent[key], int | float):
            parent[key] = rng.choice((-parent[key], parent[key] * 10**9, parent[key] + 0.5, str(parent[key])))
        else:
            parent[key] = copy.deepcopy(rng.choice(VALUES))
        if not [*_places(changed)]:
            break
    return changed


def _places(content: Any, depth: int = 0) -> Any:
    """Each container of a value with each key or index in it."""
    if depth > 6:
        return
    keys: Sequence[Any] = (
        [*content] if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    )
    for key in keys:
        yield content, key
        yield from _places(content[key], depth + 1)


def as_json(data: bytes, rng: Random) -> bytes:
    """Changes a value, a word or bytes of a JSON file."""
    if rng.random() < 0.15:
        return bytes_(data, rng)
    try:
        return json.dumps(value(json.loads(data), rng)).encode()
    except RecursionError:
        return b"[" * 100_000
