"""The programs of recorded calls, a file a subject. What a file has at its top is found by name."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from scenarios.linux.operation import Call

CALLS: dict[str, Call] = {
    value.name: value
    for found in iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{found.name}")).values()
    if isinstance(value, Call)
}
