"""What a policy or an mmu of the user's own defines, held against what the kernel calls.

The kernel never asks a method for its name: one that is misspelt is simply not called. So a public method
that looks like a hook and is none must be used by the class itself, or it is told; a private one (`_name`)
is its own affair.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Final

from actors.errors import is_users_file
from emulator.memory.folios import PageFlag
from scenarios.subjects.modules import short_path, tree_of
from scenarios.usage import UsageProblem

_CLOSE: Final = 0.75
_MEMBERS: Final = {"words_at_rest": str, "pending_words": str, "page_flags": PageFlag}
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def check_hooks(policy: Any, root: type) -> None:
    """UsageProblem for what the kernel would not call of an object whose class is derived from `root`, or not
    in this way."""
    own, base = own_and_base(type(policy), root)
    known = [name for name in dir(base) if not name.startswith("_")]
    for name in known:
        expected = getattr(base, name)
        if isinstance(inspect.getattr_static(policy, name), property):
            raise UsageProblem(f"{_line_of(type(policy))}: {name} is a property; the kernel expects none")
        if callable(expected):
            _check_hook(policy, name, expected)
        elif type(getattr(policy, name)) is not type(expected):
            got = getattr(policy, name)
            kind = type(expected).__name__
            raise UsageProblem(f"{_line_of(type(policy))}: {name} is {got!r}; the kernel expects a {kind}")
    for name, member in _MEMBERS.items():
        for got in getattr(policy, name, ()):
            if not isinstance(got, member):
                where = _line_of(type(policy))
                raise UsageProblem(f"{where}: {name} has {got!r} in it; the kernel expects {member.__name__}")
    _check_outside(own, known)
    for one in own:
        for name, value in vars(one).items():
            _check_name(one, name, value, known, own)
    for name, value in vars(policy).items():
        if name not in known and not callable(value):
            _check_name(type(policy), name, value, known, own)


def own_and_base(made: type, root: type) -> tuple[list[type], type]:
    """The user's own classes that one derived from `root` is made of, and the shipped one that they build
    on."""
    ours = ("emulator.", "scenarios.mistakes")
    own = [one for one in made.__mro__ if not one.__module__.startswith(ours) and one is not object]
    base = next(one for one in made.__mro__ if one not in own and issubclass(one, root))
    return own, base


def _check_hook(policy: Any, name: str, expected: Callable[..., Any]) -> None:
    got = getattr(policy, name)
    function = inspect.unwrap(getattr(got, "__func__", got)) if callable(got) else got
    if getattr(type(policy), name, None) is expected and name not in vars(policy):
        return
    where = _line_of(function if callable(got) else type(policy))
    signature = inspect.signature(expected)
    takes = f"({', '.join(signature.parameters)})"
    if not callable(got):
        raise UsageProblem(f"{where}: {name} is {got!r}; the kernel expects the hook {name}{takes}")
    keyword = "async def" if inspect.iscoroutinefunction(expected) else "def"
    if inspect.iscoroutinefunction(function) != inspect.iscoroutinefunction(expected):
        kind = "async" if inspect.iscoroutinefunction(function) else "not async"
        if inspect.isasyncgenfunction(function):
            kind = "a generator (it has a yield)"
        raise UsageProblem(f"{where}: the hook {name} is {kind}; the kernel expects {keyword} {name}{takes}")
    if signature.return_annotation not in ("None", "bool") and not _answers(function):
        answer = signature.return_annotation
        raise UsageProblem(f"{where}: the hook {name} returns nothing; the kernel expects {answer}")
    try:
        inspect.signature(got).bind(*list(signature.parameters)[1:])
    except TypeError:
        has = inspect.signature(function)
        raise UsageProblem(
            f"{where}: the hook {name} takes {has}; the kernel expects {keyword} {name}{takes}"
        ) from None
    wanted, named = list(signature.parameters)[1:], list(inspect.signature(got).parameters)
    if named != wanted and sorted(named) == sorted(wanted):
        raise UsageProblem(f"{where}: the hook {name} names {', '.join(named)}; they are {', '.join(wanted)}")


def _answers(function: Any) -> bool:
    """It returns a value somewhere, or raises, or its source cannot be had."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return True
    ends = [node for node in ast.walk(tree) if isinstance(node, (ast.Return, ast.Raise))]
    return any(isinstance(node, ast.Raise) or node.value is not None for node in ends)


def _check_name(one: type, name: str, value: Any, known: list[str], own: list[type]) -> None:
    """Something of the user's that the kernel does not know: fine if the policy itself uses it."""
    bare = name.strip("_")
    if name in known or name.startswith("__") or (name != bare and bare not in known):
        return
    if hasattr(value, "instead_of"):
        return
    if _is_used(name, own):
        return
    close = difflib.get_close_matches(bare.lower(), known, 1, _CLOSE)
    function = getattr(value, "__func__", value)
    if inspect.isfunction(function):
        looks_so = inspect.iscoroutinefunction(function) and name.startswith(("before_", "after_", "on_"))
        if close or looks_so:
            meant = f"did you mean {close[0]}?" if close else f"hooks are {', '.join(known)}"
            raise UsageProblem(f"{_line_of(function)}: {name} is no hook and nothing here calls it; {meant}")
    elif close and not isinstance(value, type):
        raise UsageProblem(f"{_line_of(one)}: {one.__name__}.{name} means nothing; did you mean {close[0]}?")


def _is_used(name: str, own: list[type]) -> bool:
    """Some module of the policy's reads an attribute of that name."""
    trees = [tree_of(sys.modules[each.__module__]) for each in own]
    return any(
        (isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Constant) and node.value == name)
        for tree in trees
        if tree is not None
        for node in ast.walk(tree)
    )


def _check_outside(own: list[type], known: list[str]) -> None:
    """A hook that has slipped out of its class is a function that nobody calls."""
    for module in {each.__module__: sys.modules[each.__module__] for each in own}.values():
        tree = tree_of(module)
        for node in ast.walk(tree) if tree is not None else ():
            for one in node.body if isinstance(node, (ast.Module, *_FUNCTIONS)) else ():
                if not isinstance(one, _FUNCTIONS) or one.name not in known:
                    continue
                if [arg.arg for arg in one.args.args[:1]] == ["self"]:
                    where = f"{short_path(module.__file__ or '')}:{one.lineno}"
                    raise UsageProblem(f"{where}: the hook {one.name} is outside of its class; indent it")


def _line_of(thing: Any) -> str:
    """`file:line` of a function or a class."""
    try:
        file = inspect.getsourcefile(thing) or ""
        line = inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return getattr(thing, "__qualname__", str(thing))
    return f"{short_path(file)}:{line}" if is_users_file(file) else f"{file}:{line}"
