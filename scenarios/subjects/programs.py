"""What a check runs: litmus tests and policies by name, or out of a user's own files.

Everything that can be wrong with a user's file becomes one line here: it cannot be imported, it holds no
test, its start cannot be set up, or a program of it raises in the middle of a search.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.policy import Policy
from emulator.machine.litmus import Litmus, LitmusMachine
from emulator.policies.catalogue import UnknownPolicy
from scenarios import mistakes
from scenarios.litmus import LITMUS
from scenarios.usage import UsageProblem, did_you_mean

_WILD = frozenset("*?[")


class LitmusName(NamedTuple):
    """Which litmus test: its name, and the file that defines it if it is not a shipped one."""

    name: str
    file: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.name}" if self.file else self.name


def litmus_named(text: str) -> list[LitmusName]:
    """What a person means: a shipped test, a wildcard, a .py file, or one test of it (`FILE.py:NAME`).

    UsageProblem if that is nothing.
    """
    path, colon, wanted = text.rpartition(":")
    if colon and path.endswith(".py"):
        return [LitmusName(wanted, _checked_file(path, wanted))]
    if text.endswith(".py") or os.sep in text:
        file = str(Path(text).absolute())
        return [LitmusName(one.name, file) for one in litmus_in(file)]
    if text in LITMUS:
        return [LitmusName(text)]
    if _WILD & set(text):
        found = [LitmusName(name) for name in LITMUS if fnmatch.fnmatchcase(name, text)]
        if found:
            return found
        raise UsageProblem(f"no litmus test matches {text!r}; {did_you_mean(text, LITMUS)}")
    raise UsageProblem(
        f"unknown litmus test {text!r}; {did_you_mean(text, LITMUS)}, or the path of a .py file"
    )


def _checked_file(path: str, wanted: str) -> str:
    file = str(Path(path).absolute())
    names = [one.name for one in litmus_in(file)]
    if wanted not in names:
        raise UsageProblem(f"{path}: no litmus test named {wanted!r}; {did_you_mean(wanted, names)}")
    return file


def find_named(test: LitmusName) -> Litmus:
    """The test itself. UsageProblem if there is none."""
    if not test.file:
        if test.name not in LITMUS:
            raise UsageProblem(f"unknown litmus test {test.name!r}; {did_you_mean(test.name, LITMUS)}")
        return LITMUS[test.name]
    for one in litmus_in(test.file):
        if one.name == test.name:
            return one
    raise UsageProblem(f"{short_path(test.file)}: no litmus test named {test.name!r}")


@lru_cache(maxsize=64)
def litmus_in(file: str) -> tuple[Litmus, ...]:
    """The Litmus objects at the top of a user's file. UsageProblem if it does not import or has none."""
    name = short_path(file)
    if not Path(file).is_file():
        raise UsageProblem(f"{name}: no such file; a .py file that defines LITMUS = Litmus(...)")
    # A module of its own for each path, so that two files may have one name.
    unique = f"migrc_litmus_{blake2b(file.encode(), digest_size=8).hexdigest()}"
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise UsageProblem(f"{name}: not a Python file; a .py file that defines LITMUS = Litmus(...)")
    module = importlib.util.module_from_spec(spec)
    _importable(str(Path(file).parent))
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[unique]
        raise UsageProblem(f"{name}: {_place(problem, file)}{_what(problem)}") from None
    found: dict[str, Litmus] = {}
    for value in vars(module).values():
        for one in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(one, Litmus) and found.setdefault(one.name, one) is not one:
                raise UsageProblem(f"{name}: two litmus tests are named {one.name!r}; one name each")
    if not found:
        raise UsageProblem(f"{name}: no litmus test in it; it must define LITMUS = Litmus(...)")
    return tuple(found.values())


def _importable(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)


def policy_factory(name: str) -> Callable[[], Policy]:
    """A policy, a shipped mistake, or a user's own `module:Class`. UsageProblem if it is none of them."""
    _importable(os.getcwd())
    try:
        factory = mistakes.find(name)
    except UnknownPolicy as problem:
        raise UsageProblem(f"--policy: {problem}") from None
    try:
        factory()
    except Exception as problem:
        raise UsageProblem(f"--policy {name}: making one raised {_what(problem)}") from None
    return factory


def machine_of(test: LitmusName, policy: str, arch: str) -> LitmusMachine:
    """The machine of one test under one policy. UsageProblem if it cannot be set up."""
    litmus = find_named(test)
    factory = policy_factory(policy)
    where = short_path(test.file) if test.file else test.name
    try:
        machine = LitmusMachine(litmus, ARCHITECTURES[arch], factory)
        machine.engine()
    except Exception as problem:
        place = _place(problem, test.file)
        raise UsageProblem(f"{where}: {place}the start cannot be set up: {_what(problem)}") from None
    return machine


def drop_programs_quietly() -> None:
    """Say nothing of programs that are dropped inside a `try` whose `finally` awaits something.

    A search drops programs in the middle all the time, and nobody is left who could carry that out.
    """
    sys.unraisablehook = _all_but_dropped_programs
    warnings.filterwarnings("ignore", r"coroutine '.*' was never awaited", RuntimeWarning)


def _all_but_dropped_programs(problem: sys.UnraisableHookArgs) -> None:
    if str(problem.exc_value) != "coroutine ignored GeneratorExit":
        sys.__unraisablehook__(problem)


def _what(problem: BaseException) -> str:
    text = " ".join(str(problem.msg if isinstance(problem, SyntaxError) else problem).split())
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def _place(problem: BaseException, file: str) -> str:
    """`line N: ` for where in the file it went wrong, the innermost such line; empty if it did not there."""
    if isinstance(problem, SyntaxError) and problem.filename == file:
        return f"line {problem.lineno}: "
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == file]
    return f"line {lines[-1]}: " if lines else ""


def short_path(file: str) -> str:
    """A path as seen from here, if it lies below."""
    path = Path(file)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def unique(tests: Sequence[LitmusName]) -> list[LitmusName]:
    """Each once, in order."""
    return list(dict.fromkeys(tests))
