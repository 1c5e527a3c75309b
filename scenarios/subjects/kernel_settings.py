"""Settings that a litmus test or an mmu gives the kernel: which there are, and what is wrong with one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any, Final

from emulator.kernel.percpu import KernelParameters
from emulator.kernel.versions import VERSIONS
from scenarios.usage import did_you_mean

_OF_THE_MACHINE: Final = ("cpus", "watermarks", "starts", "leaf_only")
"""Parameters of the kernel that follow from the rest of a test, and are no settings."""

SETTINGS: Final = {one.name: one for one in fields(KernelParameters) if one.name not in _OF_THE_MACHINE}


def wrong_setting(name: str, value: Any) -> Iterator[str]:
    """What is wrong with it, if anything."""
    negative = isinstance(value, int) and not isinstance(value, bool) and value < 0
    if name in _OF_THE_MACHINE:
        yield f"setting {name}: no setting; programs, fast, slow, marks and the architecture say it"
    elif name not in SETTINGS:
        yield f"no setting {name!r}; {did_you_mean(name, SETTINGS)}"
    elif name == "version":
        if not isinstance(value, str):
            yield f"setting version is {value!r:.60}; text, one of {', '.join(map(repr, VERSIONS))}"
        elif value not in VERSIONS:
            yield f"setting version is {value!r:.60}; {did_you_mean(value, VERSIONS)}"
    elif type(value) is not (kind := type(SETTINGS[name].default)) or negative:
        right = {bool: "True or False", int: "a number, from 0"}.get(kind, "a tuple")
        yield f"setting {name} is {value!r:.60}; {right}"
