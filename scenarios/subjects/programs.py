"""What a check runs: litmus tests and policies by name, or out of a user's own files.

Everything that can be wrong with a user's file becomes one line here: it cannot be imported, it holds no
test, its start cannot be set up, or a program of it raises in the middle of a search.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.versions import VERSIONS
from emulator.machine.litmus import Litmus, LitmusMachine
from emulator.machine.progress import running_cpu
from emulator.machine.stepper import plain_engine
from scenarios.subjects.await_reader import check_awaits
from scenarios.subjects.litmus_files import WANTED, check_litmus, where_of
from scenarios.subjects.mmus import DEFAULT_MMU, check_of, mmu_class
from scenarios.subjects.modules import load, place, short_path, what, with_companions
from scenarios.subjects.policies import policy_factory
from scenarios.usage import UsageProblem, did_you_mean

_WILD = frozenset("*?[")


class LitmusName(NamedTuple):
    """Which litmus test: its name, the file that defines it if it is not a shipped one, and the version of
    Linux that the kernel does as, if it is not the default one."""

    name: str
    file: str = ""
    kernel: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.name}" if self.file else self.name


@lru_cache(maxsize=1)
def shipped() -> Mapping[str, Litmus]:
    """The catalogue and the tests of the history, read when somebody asks: runs of workloads do without."""
    from scenarios.history import TESTS
    from scenarios.litmus import LITMUS

    return TESTS | LITMUS


def litmus_named(text: str) -> list[LitmusName]:
    """What a person means: a shipped test, a wildcard, a .py file, or one test of it (`FILE.py:NAME`).

    UsageProblem if that is nothing.
    """
    path, colon, wanted = text.rpartition(":")
    if colon and path.endswith(".py"):
        return _in_file(path, wanted)
    if text.endswith(".py") or os.sep in text:
        file = str(Path(text).absolute())
        return [LitmusName(one.name, file) for one in litmus_in(file)]
    if text in shipped():
        return [LitmusName(text)]
    if _WILD & set(text):
        found = [LitmusName(name) for name in shipped() if fnmatch.fnmatchcase(name, text)]
        if found:
            return found
        raise UsageProblem(f"no litmus test matches {text!r}; {did_you_mean(text, shipped())}")
    raise UsageProblem(
        f"unknown litmus test {text!r}; {did_you_mean(text, shipped())}, or the path of a .py file"
    )


def _in_file(path: str, wanted: str) -> list[LitmusName]:
    """The tests of a file that a name or a wildcard means."""
    file = str(Path(path).absolute())
    names = [one.name for one in litmus_in(file)]
    found = [name for name in names if name == wanted or fnmatch.fnmatchcase(name, wanted)]
    if not found:
        raise UsageProblem(f"{path}: no litmus test named {wanted!r}; {did_you_mean(wanted, names)}")
    return [LitmusName(name, file) for name in found]


def find_named(test: LitmusName) -> Litmus:
    """The test itself. UsageProblem if there is none."""
    if not test.file:
        if test.name not in shipped():
            raise UsageProblem(f"unknown litmus test {test.name!r}; {did_you_mean(test.name, shipped())}")
        return shipped()[test.name]
    for one in litmus_in(test.file):
        if one.name == test.name:
            return one
    raise UsageProblem(f"{short_path(test.file)}: no litmus test named {test.name!r}")


@lru_cache(maxsize=64)
def litmus_in(file: str) -> tuple[Litmus, ...]:
    """The Litmus objects at the top of a user's file. UsageProblem if it does not import or has none."""
    module = load(file, WANTED)
    for part in with_companions(module):
        check_awaits(part)
    found: dict[str, Litmus] = {}
    for value in vars(module).values():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if not isinstance(one, Litmus):
                continue
            check_litmus(one, file)
            if found.setdefault(one.name, one) is not one:
                raise UsageProblem(
                    f"{_line(one, file)}: two litmus tests are named {one.name!r}, the other one in "
                    f"{_line(found[one.name], file)}; one name each"
                )
    if not found:
        raise UsageProblem(f"{short_path(file)}: no litmus test in it; it must define LITMUS = Litmus(...)")
    return tuple(found.values())


def described(test: LitmusName) -> str:
    """Where a test is: file and line, or that it is a shipped one."""
    return _line(find_named(test), test.file) if test.file else "the shipped one"


def _line(litmus: Litmus, file: str) -> str:
    return where_of(litmus, file).rpartition(": ")[0]


def modules_of(test: LitmusName) -> list[ModuleType]:
    """The user's own modules that a test is made of: other processes cannot import them."""
    return with_companions(load(test.file, WANTED)) if test.file else []


def machine_of(test: LitmusName, policy: str, arch: str, mmu: str = DEFAULT_MMU) -> LitmusMachine:
    """The machine of one test under one policy. UsageProblem if it cannot be set up; what a
    program of it raises at once is passed on."""
    litmus = find_named(test)
    if test.kernel:
        if test.kernel not in VERSIONS:
            raise UsageProblem(f"{test.name}: kernel {test.kernel!r}; {did_you_mean(test.kernel, VERSIONS)}")
        litmus = replace(litmus, settings=(("version", test.kernel), *litmus.settings))
    factory, how = policy_factory(policy), mmu_class(mmu)
    check_of(mmu, arch)
    try:
        machine = LitmusMachine(litmus, ARCHITECTURES[arch], factory, how)
        plain_engine(machine)
    except Exception as problem:
        if running_cpu(problem) >= 0:
            raise
        line = place(problem, test.file)
        where = short_path(test.file) if test.file else test.name
        if test.file and not line:
            where = where_of(find_named(test), test.file)
        raise UsageProblem(f"{where}: {line}the start cannot be set up: {what(problem)}") from None
    return machine
