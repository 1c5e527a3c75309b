"""A user's own Python file as a module, what it has from beside it, and what is wrong with it in words.

A file is loaded by its path, under a name of its own: two files may have one name, and no file can hide an
installed package, because a folder that is searched is searched last.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
import traceback
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType

from actors.errors import is_users_file
from scenarios.usage import UsageProblem


@lru_cache(maxsize=64)
def load(file: str, wanted: str) -> ModuleType:
    """The module of a file; `wanted` says what such a file holds. UsageProblem if it does not import."""
    name = short_path(file)
    if not Path(file).is_file():
        raise UsageProblem(f"{name}: no such file; {wanted}")
    unique = f"migrc_file_{blake2b(file.encode(), digest_size=8).hexdigest()}"
    if unique in sys.modules:
        return sys.modules[unique]
    spec = importlib.util.spec_from_file_location(unique, file)
    if spec is None or spec.loader is None:
        raise UsageProblem(f"{name}: not a Python file; {wanted}")
    module = importlib.util.module_from_spec(spec)
    find_in(str(Path(file).parent))
    sys.modules[unique] = module
    # So that a coroutine which nobody awaits can be told with the line that made it.
    sys.set_coroutine_origin_tracking_depth(1)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        del sys.modules[unique]
        raise UsageProblem(f"{name}: {place(problem, file)}{what(problem)}") from None
    return module


def find_in(folder: str) -> None:
    """Let modules be found in a folder too, behind all others."""
    if folder not in sys.path:
        sys.path.append(folder)


def with_companions(module: ModuleType) -> list[ModuleType]:
    """A module and all modules of the user's own that it has something from."""
    found = [module]
    for one in found:
        for value in list(vars(one).values()):
            name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            other = sys.modules.get(name) if isinstance(name, str) else None
            file = getattr(other, "__file__", None)
            if other is not None and other not in found and file is not None and is_users_file(file):
                found.append(other)
    return found


@lru_cache(maxsize=64)
def tree_of(module: ModuleType) -> ast.Module | None:
    """The syntax of a module; None if its source cannot be had."""
    try:
        return ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return None


def what(problem: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(problem.msg if isinstance(problem, SyntaxError) else problem).split())
    return f"{type(problem).__name__}: {text}" if text else type(problem).__name__


def place(problem: BaseException, file: str) -> str:
    """`line N: ` for the innermost line of a user's own where it went wrong, `FILE:N: ` if that is not in
    `file`; empty if there is none."""
    if isinstance(problem, SyntaxError) and problem.filename:
        at, line = problem.filename, problem.lineno
    else:
        frames = [one for one in traceback.extract_tb(problem.__traceback__) if is_users_file(one.filename)]
        if not frames:
            return ""
        at, line = frames[-1].filename, frames[-1].lineno
    return f"line {line}: " if at == file else f"{short_path(at)}:{line}: "


def short_path(file: str) -> str:
    """A path as seen from here, if it lies below."""
    path = Path(file)
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
