"""A short name for a whole state, the same in every process: for comparing a live run with its replay."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any


def canonical(value: Any) -> Any:
    """The value with its sets in a fixed order, whatever the process' hash seed."""
    if isinstance(value, frozenset):
        return ("set", *sorted((canonical(item) for item in value), key=repr))
    if isinstance(value, (tuple, list)):
        return tuple([canonical(item) for item in value])
    return value


def digest(value: Any) -> str:
    """32 hexadecimal digits over nested tuples, frozen sets, numbers and strings (BLAKE2b)."""
    return blake2b(repr(canonical(value)).encode(), digest_size=16).hexdigest()
