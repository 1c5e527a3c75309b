"""Policies that are wrong on purpose: one mistake each, to see that some check catches it.

A class of these modules that has a name of its own, `mistake:...`, is one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from emulator.kernel.policy import Policy
from scenarios.mistakes.notes import narrow_generation

MISTAKES: dict[str, Callable[[], Policy]] = {
    value.name: value
    for found in iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{found.name}")).values()
    if isinstance(value, type) and issubclass(value, Policy) and value.name.startswith("mistake:")
} | {"mistake:narrow-generation": narrow_generation}
