"""Mutations: what makes a bad file out of a good one, in its bytes or in its values, drawn with a seed.

Frames get the length and the CRC that belong to them, so that what is inside is read.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import struct
import tomllib
import zlib
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

import msgpack

from scenarios.files.unfinished import MAGIC as UNFINISHED

FRAME = struct.Struct(">II")
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "",
    "x", "\0", "../x", "a" * 5000, b"", b"\xff\xfe", [], [[]], {}, {"x": 1}, [0] * 3000,
)  # fmt: skip
DEEP = 3000
WORDS = (
    "-1", "0", "9" * 25, "nan", "inf", "1e400", "*", "[", "../..", "/dev/null", "a:b", "\u0661", "x" * 300,
    ":", "=", "..", ".", "0*9999999999", "--", "-", "%s", "{}", "~", "None", "1.5", "\u2028", "::", "host:0",
    "[::1]:99999",
)  # fmt: skip
Mutate = Callable[[Random, bytes], bytes]


def bytes_of(random: Random, whole: bytes) -> bytes:
    """Some bytes changed, taken out, doubled; or the end cut off."""
    found = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(found) + 1)
        length = random.choice((1, 1, 2, 8, 100))
        match random.randrange(5):
            case 0:
                found[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case 3:
                found[at:at] = random.randbytes(length)
            case _:
                del found[at:]
    return bytes(found)


def value_of(random: Random, value: Any) -> Any:
    """Somewhere in a tree of values another value, one too many, or one too few."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        match random.randrange(6):
            case 0:
                return {one: two for one, two in value.items() if one != key}
            case 1:
                return {**value, random.choice(("x", "", key + "x" if isinstance(key, str) else "y")): 1}
            case _:
                return {**value, key: value_of(random, value[key])}
    if isinstance(value, (list, tuple)) and value and random.random() < 0.9:
        found = list(value)
        at = random.randrange(len(found))
        match random.randrange(6):
            case 0:
                del found[at]
            case 1:
                found.insert(at, found[at])
            case _:
                found[at] = value_of(random, found[at])
        return found
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1, 1000, 2**32, 2**62))
    return random.choice(ODD)


def packed(value: Any) -> bytes:
    """As MessagePack; a number that it has no room for is cut."""
    while True:
        try:
            return msgpack.packb(value)
        except (OverflowError, ValueError):
            value = None


def of_witness(random: Random, whole: bytes) -> bytes:
    """A witness: a value of it another."""
    return packed(value_of(random, msgpack.unpackb(whole)))


def of_recording(random: Random, whole: bytes) -> bytes:
    """A recording: a frame out, doubled, or a value in it another; lengths and CRCs belong to them."""
    head, frames, at = whole.partition(b"\n")[0] + b"\n", [], whole.index(b"\n") + 1
    while at < len(whole):
        length, _ = FRAME.unpack_from(whole, at)
        frames.append(whole[at + FRAME.size : at + FRAME.size + length])
        at += FRAME.size + length
    number = random.randrange(len(frames))
    match random.randrange(8):
        case 0:
            del frames[number]
        case 1:
            frames.insert(number, random.choice(frames))
        case _:
            frames[number] = packed(value_of(random, msgpack.unpackb(frames[number], use_list=False)))
    return head + b"".join(FRAME.pack(len(one), zlib.crc32(one)) + one for one in frames)


def of_lines(random: Random, whole: bytes) -> bytes:
    """Lines of JSON: one out, doubled, nested deeply, or a value in it another."""
    lines = whole.splitlines()
    at = random.randrange(len(lines))
    match random.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, random.choice(lines))
        case 2:
            lines[at] = b"[" * DEEP + b"]" * DEEP
        case _:
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(value_of(random, json.loads(lines[at])), default=repr).encode()
    return b"\n".join(lines) + b"\n"


def of_json(random: Random, whole: bytes) -> bytes:
    """A value of a JSON document another."""
    return json.dumps(value_of(random, json.loads(whole)), default=repr).encode()


def of_toml(random: Random, whole: bytes) -> bytes:
    """A value of a TOML file another."""
    tree = value_of(random, tomllib.loads(whole.decode()))
    if not isinstance(tree, dict):
        return bytes_of(random, whole)
    lines = []
    plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    for table, values in [("", plain), *((k, v) for k, v in tree.items() if isinstance(v, dict))]:
        lines += [f"[{table}]"] if table else []
        lines += [f"{json.dumps(key)} = {json.dumps(value, default=repr)}" for key, value in values.items()]
    return "\n".join(lines).encode()


def of_trace(random: Random, whole: bytes) -> bytes:
    """Values one behind the other as MessagePack: one of them another."""
    unpacker = msgpack.Unpacker(use_list=True)
    unpacker.feed(whole)
    parts = list(unpacker)
    at = random.randrange(len(parts))
    parts[at] = value_of(random, parts[at])
    return b"".join(packed(one) for one in parts)


def of_events(random: Random, whole: bytes) -> bytes:
    """As `of_trace`, compressed."""
    return gzip.compress(of_trace(random, gzip.decompress(whole)), 1, mtime=0)


def of_table(random: Random, whole: bytes) -> bytes:
    """A cell of a table another."""
    lines = whole.splitlines()
    at = random.randrange(len(lines))
    cells = lines[at].split(b"\t")
    cell = random.randrange(len(cells))
    cells[cell] = random.choice(
        (b"", b"x", b"-1", b"9" * 30, b"\xff", b"a=b", b"*", b"\0", b"nan", cells[-1])
    )
    lines[at] = b"\t".join(cells)
    return b"\n".join(lines) + b"\n"


def of_search(random: Random, whole: bytes) -> bytes:
    """The head or a block changed, and the hash that belongs to it."""
    head, _, rest = whole[len(UNFINISHED) :].partition(b"\n")
    if random.random() < 0.7:
        head = json.dumps(value_of(random, json.loads(head)), default=repr).encode()
    else:
        (length,) = struct.unpack_from("<I", rest)
        words = zlib.compress(bytes_of(random, zlib.decompress(rest[4 : 4 + length])))
        rest = struct.pack("<I", len(words)) + words + rest[4 + length :]
    body = UNFINISHED + head + b"\n" + rest[:-32]
    return body + blake2b(body, digest_size=32).digest()


def of_words(random: Random, whole: bytes) -> bytes:
    """Words of another option, or doubled, or none, or odd ones."""
    words = whole.decode().split(" ")
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(words))
        match random.randrange(5):
            case 0:
                words[at] = ""
            case 1:
                words[at] *= 2
            case 2:
                words[at] = random.choice(words)
            case 3:
                cut = random.randrange(len(words[at]) + 1)
                words[at] = words[at][:cut] + random.choice(WORDS) + words[at][cut:]
            case _:
                words[at] = random.choice(WORDS)
    return " ".join(words).encode()


_TOKENS = re.compile(rb"\w+|\s+|.", re.DOTALL)
_STRANGE = (
    b"", b"0", b"-1", b"9" * 25, b"(" * 2000, b"/" * 99, b"{", b"}", b"*", b"\\", b"\xff", b"x0",
    b"P9", b";", b"|", b"~exists", b"while (1)", b"0x7fffffffffffffff", b"\"", b"/* (* ",
)  # fmt: skip


def of_text(random: Random, whole: bytes) -> bytes:
    """Words and signs of a text out, doubled, exchanged, or strange ones instead."""
    tokens = _TOKENS.findall(whole)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(tokens))
        match random.randrange(4):
            case 0:
                del tokens[at]
                tokens = tokens or [b"x"]
            case 1:
                tokens.insert(at, random.choice(tokens))
            case 2:
                tokens[at] = random.choice(tokens)
            case _:
                tokens[at] = random.choice(_STRANGE)
    return b"".join(tokens)
