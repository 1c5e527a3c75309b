"""The catalogue of litmus tests: questions about TLB flushing that an explorer answers.

Each is a handful of steps on two to four CPUs, and says what to expect of each policy per architecture. What
a file of this folder holds at its top is in the catalogue.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from emulator.machine.litmus import Litmus

LITMUS: dict[str, Litmus] = {
    value.name: value
    for found in iter_modules(__path__)
    for value in vars(import_module(f"{__name__}.{found.name}")).values()
    if isinstance(value, Litmus)
}
