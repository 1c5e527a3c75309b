"""What functions of a program may ask Python for: the parts of the standard library that keep nothing.

No search sees files, clocks, or what a library keeps for the process, so what is not known to be pure is
refused where a function names it. A module may be pure in whole, or some of its names are.
"""

from __future__ import annotations

import builtins
import re
import sys
import sysconfig
from collections.abc import Iterator
from dis import Instruction, get_instructions, opmap
from itertools import pairwise
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Final

from emulator.explore.unsearchable import Unsearchable

_ATTRIBUTES: Final = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
_CONSTANTS: Final = frozenset({"LOAD_CONST", "LOAD_GLOBAL"})
_IMPORTS: Final = opmap["IMPORT_NAME"]
_LIBRARIES: Final = tuple(
    sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")
)
_OURS: Final = frozenset({"emulator", "scenarios", "actors", "benchmarks", "tests"})
_NOTHING: Final = object()
_PATH: Final = re.compile(r"[^.{}!:]+")  # of names, as in "{0.cr_frame.f_locals}"

_PURE: Final = frozenset(
    {"__future__", "array", "base64", "binascii", "bisect", "cmath", "collections", "dataclasses", "difflib"}
    | {"enum", "fractions", "functools", "graphlib", "hashlib", "heapq", "html", "itertools"}
    | {"json", "keyword", "math", "numbers", "operator", "re", "string", "struct", "textwrap", "types"}
    | {"typing", "zlib"}
)
# Of modules that keep something as well.
_PURE_NAMES: Final = {
    "abc": frozenset({"ABC", "ABCMeta", "abstractmethod"}),
    "contextlib": frozenset(
        {"ExitStack", "AsyncExitStack", "asynccontextmanager", "closing", "contextmanager", "nullcontext"}
        | {"suppress", "AbstractContextManager", "AbstractAsyncContextManager"}
    ),
    "copy": frozenset({"copy"}),  # `deepcopy` tells what an iterator has passed
    "inspect": frozenset({"isawaitable", "iscoroutine", "iscoroutinefunction", "isfunction", "unwrap"}),
    "io": frozenset({"StringIO", "BytesIO"}),  # which cannot be kept across an await
}
# `id`, `hash` and addresses differ from run to run; the others reach all there is.
_OUTSIDE_BUILTINS: Final = frozenset(
    {"__import__", "breakpoint", "compile", "copyright", "credits", "dir", "eval", "exec", "exit", "globals"}
    | {"hash", "help", "id", "input", "license", "locals", "open", "quit", "vars"}
)
# What tells how something came about, of things that are equal: how much room a list has, who has derived
# from a class, what an iterator has passed, what variables hold that are not read any more. And ways to all
# names of a module.
_SHOW_MORE: Final = frozenset(
    {"__sizeof__", "__alloc__", "__subclasses__", "__globals__", "__builtins__", "f_globals", "f_builtins"}
    | {"f_trace", "f_trace_lines", "f_trace_opcodes", "__reduce__", "__reduce_ex__", "__setstate__"}
    | {"f_locals", "f_back", "tb_frame", "ag_frame", "cr_frame", "gi_frame"}
)
# Of two that are equal a search keeps one.
_ONE_OF_EQUALS: Final = (int, float, complex, str, bytes, tuple, frozenset)
_INSTEAD: Final = (
    "no search sees files, clocks or what a library keeps; work it out at the top of the file and keep it as "
    "a constant, and let words of the machine hold what changes"
)


class Outside(Unsearchable):
    """A function asks for something that is no part of the machine; the message names it."""


def is_library(module: str) -> bool:
    """It is a module of Python's or of somebody else's packages, not of a program."""
    found = sys.modules.get(module)
    if found is None or module.partition(".")[0] in _OURS:
        return False
    file = getattr(found, "__file__", None)
    return module in sys.builtin_module_names or (file is not None and file.startswith(_LIBRARIES))


def codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def imports(code: CodeType) -> list[str]:
    """The modules that it imports when it runs."""
    if _IMPORTS not in code.co_code[::2]:
        return []
    return [step.argval for step in get_instructions(code) if step.opcode == _IMPORTS]


def stays_inside(code: CodeType, namespace: dict[str, Any]) -> None:
    """Raise Outside if a function asks for a file, a clock, or what else is outside of the machine."""
    value: Any = _NOTHING
    asked = source = ""
    steps = [step for step in get_instructions(code) if step.opname != "EXTENDED_ARG"]
    for step, following in pairwise(steps):
        further = following.opname in _ATTRIBUTES
        if following.opname == "IS_OP" and step.opname in _CONSTANTS:
            named = step.argval if step.opname == "LOAD_CONST" else namespace.get(step.argval)
            if type(named) in _ONE_OF_EQUALS:
                raise Outside(
                    f"{_where(code, step)}: `is` with a {type(named).__name__}: no search sees which of two "
                    "equal ones it is; compare with =="
                )
        if step.opcode == _IMPORTS:
            asked = source = step.argval
            value = _NOTHING
            inside = _may_import(source, following.opname == "IMPORT_FROM")
        elif step.opname == "IMPORT_FROM":
            asked = f"{source}.{step.argval}"
            inside = _is_pure(source, step.argval)
        elif step.opname == "LOAD_GLOBAL":
            asked = step.argval
            value = namespace.get(asked, vars(builtins).get(asked, _NOTHING))
            inside = _may_ask(value, further)
        elif step.opname in _ATTRIBUTES and isinstance(value, ModuleType):
            asked = f"{asked}.{step.argval}"
            inside = _is_pure(value.__name__, step.argval)
            value = getattr(value, step.argval, _NOTHING)
            inside = inside and _may_ask(value, further)
        elif step.opname in _ATTRIBUTES and step.argval in _SHOW_MORE:
            asked, inside = step.argval, False
        elif step.opname == "LOAD_CONST" and (more := shows_more(step.argval)):
            asked, inside = more, False  # for getattr, operator.attrgetter, format or a pattern
        else:
            value = _NOTHING
            continue
        if not inside:
            raise Outside(f"{_where(code, step)}: {asked} is outside of the machine: {_INSTEAD}")


def shows_more(value: Any) -> str:
    """A string, or one of a tuple, with a name by which a program would ask for what is not read."""
    if type(value) is str:
        return "" if _SHOW_MORE.isdisjoint(_PATH.findall(value)) else value
    if type(value) in (tuple, frozenset):
        return next(filter(None, map(shows_more, value)), "")
    return ""


def _where(code: CodeType, step: Instruction) -> str:
    line = step.positions.lineno if step.positions else code.co_firstlineno
    return f"{code.co_filename.rpartition('/')[2]}:{line} in {code.co_name}"


def _may_import(module: str, names_follow: bool) -> bool:
    """A function may import what is pure, and what the program is made of if it has been loaded by then."""
    top = module.partition(".")[0]
    loaded = module in sys.modules and not is_library(module)
    return loaded or not top or top in _PURE or (names_follow and top in _PURE_NAMES)


def _may_ask(value: Any, further: bool) -> bool:
    """For this function, class or module; `further`: for something of it."""
    if isinstance(value, ModuleType):
        return value is not builtins and (further or _is_pure(value.__name__, ""))
    if isinstance(value, type) or type(value) in (FunctionType, BuiltinFunctionType):
        return _is_pure(value.__module__ or "", value.__qualname__)
    return value is not vars(builtins)


def _is_pure(module: str, name: str) -> bool:
    """What is found under this name in the module keeps nothing; under an empty name, the whole module."""
    top = module.partition(".")[0].lstrip("_")
    if top == "builtins":
        return name not in _OUTSIDE_BUILTINS
    if top in _PURE_NAMES:
        return name.partition(".")[0] in _PURE_NAMES[top]
    return top in _PURE or module == "__future__" or not is_library(module)
