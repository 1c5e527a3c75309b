"""What is wrong with a litmus test of a user's own, field by field, with the line that made it.

A Litmus is plain data that nobody checks when it is made: a string where a tuple belongs, a program that is
none, a setting that does not exist would show later, in a line of ours, or nowhere.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, get_args

from emulator.kernel.mmu.catalogue import MMUS
from emulator.kernel.policy import Policy
from emulator.machine.litmus import Expectation, Litmus, Observation
from emulator.memory.zone import Watermarks
from scenarios.subjects.kernel_settings import wrong_setting
from scenarios.subjects.mmus import mmu_class
from scenarios.subjects.modules import load, short_path, tree_of
from scenarios.subjects.own_classes import looks_own
from scenarios.subjects.policies import policy_factory
from scenarios.usage import UsageProblem, did_you_mean

WANTED: Final = "a .py file that defines LITMUS = Litmus(...)"


class _Kind(NamedTuple):
    holds: Callable[[Any], bool]
    right: str


def _words(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_BOOL: Final = _Kind(lambda value: isinstance(value, bool), "True or False")
_WORDS: Final = _Kind(_words, 'a tuple of names, ("one",) for one')
_FRAMES: Final = _Kind(lambda value: _is_int(value) and value > 0, "a number of frames, from 1")
_KINDS: Final[dict[str, _Kind]] = {
    "name": _Kind(lambda value: isinstance(value, str) and bool(value.strip()), "a name"),
    "question": _Kind(lambda value: isinstance(value, str), "a sentence"),
    "programs": _Kind(lambda value: isinstance(value, tuple), "a tuple of programs, (program,) for one CPU"),
    "expected": _Kind(
        lambda value: type(value) is tuple and all(isinstance(one, Expectation) for one in value),
        'a tuple of never(...), sometimes(...) or Expectation(...), (never("immediate"),) for one',
    ),
    **dict.fromkeys(("drain", "frugal"), _BOOL),
    "speculated": _Kind(
        lambda value: isinstance(value, tuple) and all(map(_is_int, value)),
        "a tuple of pages, (PAGE,) for one",
    ),
    **dict.fromkeys(("fast", "slow"), _FRAMES),
    "marks": _Kind(lambda value: isinstance(value, Watermarks), "Watermarks(min, low, high)"),
    "settings": _Kind(
        lambda value: (
            isinstance(value, tuple)
            and all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str) for one in value)
        ),
        'a tuple of (name, value), (("hpage_order", 1),) for one',
    ),
    "only": _Kind(
        lambda value: isinstance(value, type) and issubclass(value, Policy), "a class derived from Policy"
    ),
    **dict.fromkeys(("asks", "rules", "ignore"), _WORDS),
}


def check_litmus(litmus: Litmus, file: str) -> None:
    """UsageProblem for the first thing that is wrong with a test of this file."""
    where = where_of(litmus, file)
    for problem in _problems(litmus):
        raise UsageProblem(f"{where}: {problem}")
    _check_programs(litmus, where, short_path(file))
    if not isinstance(litmus.mmu, str) or not (litmus.mmu in MMUS or looks_own(litmus.mmu)):
        raise UsageProblem(f"{where}: mmu is {litmus.mmu!r:.60}; {did_you_mean(str(litmus.mmu), MMUS)}")
    mmu_class(litmus.mmu, f"{where}: mmu")
    for one in litmus.expected:
        try:
            policy_factory(one.policy)
        except UsageProblem as found:
            said = found.message.removeprefix("--policy: ").removeprefix("--policy ")
            raise UsageProblem(f"{where}: it expects something of a policy: {said}") from None


def where_of(litmus: Litmus, file: str) -> str:
    """`FILE:LINE: NAME` of the test; without the line where that cannot be read."""
    module = load(file, WANTED)
    tree = tree_of(module)
    name = repr(litmus.name)
    title = f": {litmus.name}" if isinstance(litmus.name, str) and litmus.name else ""
    assigned, written = 0, 0
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned = node.lineno if vars(module).get(node.targets[0].id) is litmus else assigned
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Litmus"):
            first = [one.value for one in node.keywords if one.arg == "name"] or node.args[:1]
            written = node.lineno if first and ast.unparse(first[0]) == name else written
    line = assigned or written
    return f"{short_path(file)}:{line}{title}" if line else f"{short_path(file)}{title}"


def _problems(litmus: Litmus) -> Iterator[str]:
    for field, kind in _KINDS.items():
        value = getattr(litmus, field)
        if not kind.holds(value):
            yield f"{field} is {value!r:.60}; {kind.right}"
    for one in litmus.expected:
        yield from _wrong_expectation(one)
    names = [name for name, _ in litmus.settings]
    for name, value in litmus.settings:
        yield from wrong_setting(name, value)
        if names.count(name) > 1:
            yield f"setting {name} is given {names.count(name)} times; once"
    if not litmus.programs:
        yield "it has no program; one for each CPU, and at least one CPU"


def _wrong_expectation(one: Expectation) -> Iterator[str]:
    if not isinstance(one.policy, str):
        yield f"it expects something of {one.policy!r:.50}; a policy's name, never(Class), sometimes(Class)"
    for arch in ("sc", "x86", "riscv", "arm64"):
        value = getattr(one, arch)
        if value is not None and value not in get_args(Observation):
            known = " or ".join(map(repr, get_args(Observation)))
            yield f"it expects {value!r:.60} of {one.policy} on {arch}; {known}, or None"
    for field in ("reached", "rules"):
        value = getattr(one, field)
        if not _words(value):
            yield f"{field} of what it expects of {one.policy} is {value!r:.60}; {_WORDS.right}"


def _check_programs(litmus: Litmus, where: str, file: str) -> None:
    """UsageProblem for a program that is none. Python would say so where it is awaited, which is not here."""
    wanted = [(body, "program", "async def", True) for body in litmus.programs]
    for body, role, keyword, is_async in [*wanted, (litmus.setup, "setup", "def", False)]:
        code = getattr(inspect.unwrap(body), "__code__", None) if callable(body) else None
        own = code is not None and short_path(code.co_filename) == file
        title = f"{file}:{code.co_firstlineno}" if code is not None and own else where
        name = getattr(body, "__name__", repr(body))
        if inspect.iscoroutine(body):
            body.close()
            raise UsageProblem(
                f"{title}: the {role} {name} is called already; call({name}, ...) makes a program of it"
            )
        if not callable(body) or inspect.iscoroutinefunction(inspect.unwrap(body)) != is_async:
            raise UsageProblem(f"{title}: the {role} {name:.60} must be a function made with {keyword}")
        try:
            inspect.signature(body).bind(None)
        except TypeError:
            takes = "cpu: PerCpu" if is_async else "start: Setup"
            has = str(inspect.signature(body)).replace("'", "")
            raise UsageProblem(
                f"{title}: the {role} {name} takes {has}; it is called with ({takes})"
            ) from None
