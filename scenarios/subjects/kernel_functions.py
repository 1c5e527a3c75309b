"""Which function of this kernel is which of Linux, who calls it, and what may be put in its place.

Read off the modules of `emulator.kernel` as they are, so that it cannot be out of date. What a function uses
is what stands in its code by name; what it is handed, it is not seen to call.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import emulator.kernel
from emulator.kernel import instead
from emulator.kernel.instead import called, is_replaceable, kernels_own
from emulator.kernel.policy import Policy
from emulator.policies import migrc_v3, migrc_v9
from scenarios.litmus import kit, steps, syscalls
from scenarios.usage import UsageProblem, did_you_mean

_PATH: Final = re.compile(r"\b(?:arch|drivers|fs|include|kernel|mm|virt)/[\w/.-]*\w")
_WORD: Final = re.compile(r"\w+")
_HOOKS: Final = tuple(
    name for name, value in vars(Policy).items() if inspect.isfunction(value) and name[0] != "_"
)


class KernelFunction(NamedTuple):
    """One function of the kernel, or a hook of the policy that it asks (then `of` is `Policy`).

    `place` is its file and line, `kernel` the files of Linux that it is in, `does` what its docstring says
    first. `uses` are operations and functions that `instead_of(..., within=this)` takes, `hooks` what it asks
    the policy. `callers` are functions of the kernel, `programs` the helpers of litmus tests that get there.
    """

    name: str
    of: str
    place: str
    signature: str
    kernel: tuple[str, ...]
    does: str
    uses: tuple[str, ...]
    hooks: tuple[str, ...]
    callers: tuple[str, ...]
    programs: tuple[str, ...]

    @property
    def is_hook(self) -> bool:
        """The policy has it: a class of one's own overrides it."""
        return self.of == "Policy"

    def means(self, text: str) -> bool:
        """A person may call it so: its name, one that its docstring has, a file of Linux or of ours."""
        if "/" in text:
            return text in self.kernel or self.place.partition(":")[0].endswith(text)
        return fnmatchcase(self.name, text) or text in _WORD.findall(self.does)


@lru_cache(maxsize=1)
def kernel_functions() -> tuple[KernelFunction, ...]:
    """All of them, in the order of their files, hooks last."""
    own = [one for module in _modules() if module is not instead for one in _own(module)]
    graph = {found: _used(found) for found in own}
    callers: dict[Any, list[Any]] = {}
    for caller, used in graph.items():
        for one in used:
            callers.setdefault(one, []).append(caller)
    for name in _HOOKS:
        callers[vars(Policy)[name]] = [one for one in own if _asks(one, name)]
    starts = list(_programs())
    return tuple(
        KernelFunction(
            name=found.__name__,
            of="Policy" if found.__qualname__.startswith("Policy.") else found.__module__,
            place=_place(found),
            signature=_signature(found),
            kernel=_kernel(found),
            does=_first(found),
            uses=tuple(sorted(one.__name__ for one in graph.get(found, ()) if one is not found)),
            hooks=tuple(name for name in _HOOKS if _asks(found, name)),
            callers=tuple(one.__name__ for one in callers.get(found, ()) if one is not found),
            programs=tuple(sorted(_reached_from(found, callers, starts))),
        )
        for found in [*own, *(vars(Policy)[name] for name in _HOOKS)]
    )


def functions_named(texts: Sequence[str]) -> list[KernelFunction]:
    """Those that these texts mean, all without any. UsageProblem for one that means none."""
    every = kernel_functions()
    found: dict[KernelFunction, None] = {}
    for text in texts:
        meant = [one for one in every if one.name == text] or [one for one in every if one.means(text)]
        if not meant:
            known = {one.name for one in every} | {file for one in every for file in one.kernel}
            close = did_you_mean(text, known).partition("known: ")[0]
            raise UsageProblem(f"no function of the kernel {text!r}; {close}migrc functions lists all")
        found |= dict.fromkeys(meant)
    return list(found) if texts else list(every)


@lru_cache(maxsize=1)
def known_counters() -> frozenset[str]:
    """What the kernel, the postings and the helpers of tests count, as far as the name stands there."""
    found: set[str] = set()
    for module in (*_modules(), migrc_v3, migrc_v9, steps, syscalls):
        for node in ast.walk(ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("cpu.count") and node.args:
                value = node.args[0]
                name = getattr(value, "value", None) or vars(module).get(getattr(value, "id", ""))
                found |= {name} if isinstance(name, str) else set()
    return frozenset(found)


def _modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(emulator.kernel.__path__, "emulator.kernel.")
    return [importlib.import_module(one.name) for one in found]


def _own(module: ModuleType) -> Iterator[Any]:
    """The functions that a module defines."""
    for value in list(vars(module).values()):
        function = kernels_own(value)
        if inspect.isfunction(function) and function.__module__ == module.__name__:
            yield function


def _used(function: Any) -> list[Any]:
    """The operations and functions of the kernel that stand in it by name."""
    there = (kernels_own(function.__globals__.get(name)) for name in sorted(called(function)))
    return [one for one in there if is_replaceable(one)]


def _asks(function: Any, hook: str) -> bool:
    names = called(function)
    return hook in names and "policy" in names and function.__qualname__[:7] != "Policy."


def _programs() -> Iterator[tuple[Any, str]]:
    """What programs of litmus tests call, and what is called there."""
    for name, value in vars(kit).items():
        function = kernels_own(value)
        if inspect.isfunction(function):
            if is_replaceable(function):
                if name.isupper():
                    yield function, name
            else:
                yield from ((one, name) for one in _used(function))


def _reached_from(found: Any, callers: dict[Any, list[Any]], starts: Sequence[tuple[Any, str]]) -> set[str]:
    """The programs that get to a function, over whatever calls it."""
    ahead = dict.fromkeys([found])
    left = [found]
    while left:
        more = [one for one in callers.get(left.pop(), ()) if one not in ahead]
        ahead |= dict.fromkeys(more)
        left += more
    return {name for one, name in starts if one in ahead}


def _place(found: Any) -> str:
    code = found.__code__
    return f"{found.__module__.replace('.', '/')}.py:{code.co_firstlineno}"


def _signature(found: Any) -> str:
    keyword = "async " if inspect.iscoroutinefunction(found) else ""
    return f"{keyword}{found.__name__}{str(inspect.signature(found)).replace(chr(39), '')}"


def _kernel(found: Any) -> tuple[str, ...]:
    """The files of Linux that its docstring names, or else its module's."""
    own = _PATH.findall(inspect.getdoc(found) or "")
    module = inspect.getdoc(inspect.getmodule(found)) or ""
    return tuple(dict.fromkeys(own or _PATH.findall(module)))


def _first(found: Any) -> str:
    return " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
