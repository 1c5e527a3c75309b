"""The code before a fix: under one policy a method of its own where the kernel calls one of its functions.

Kernel code says nothing of this. When a machine is made whose policy marks methods with `instead_of`, what
they stand for is found behind a branch from then on, which asks the policy of the CPU that runs it; under all
other policies it is the kernel's own.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple, TypeVar

from emulator.hardware.operations import TABLE, Series
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import Policy
from emulator.kernel.smp import FUNCTIONS

Method = TypeVar("Method", bound=Callable[..., Any])


class Instead(NamedTuple):
    """What a method stands for: a function of the kernel, or an operation, where `within` calls it.

    None: wherever it is called. `with_cpu`: it stands for an operation, and wants to know the CPU.
    """

    function: Callable[..., Any]
    within: Callable[..., Any] | None
    with_cpu: bool


class WrongCall(TypeError):
    """A policy's method cannot be called as the kernel calls what it stands for; `place` is the method's."""

    def __init__(self, method: str, text: str, code: CodeType) -> None:
        super().__init__(f"{method} {text}")
        self.place = (code.co_filename, code.co_firstlineno, code.co_name)


_CALLED: set[CodeType] = set()
_BRANCHES: dict[Any, Callable[..., Any]] = {}
_TABLES: dict[type[Policy], dict[Any, tuple[tuple[str, Instead], ...]]] = {}
_READY: set[type[Policy]] = set()


def instead_of(
    function: Callable[..., Any], within: Callable[..., Any] | None = None
) -> Callable[[Method], Method]:
    """Decorator of a policy's method: it is called instead of `function`, whose arguments follow `self`.

    With `within` only where that function of the kernel calls it; an operation needs one, and its method may
    take `cpu` before the operation's fields. In the method itself the name means what it always does.
    TypeError for what the kernel does not have, or does not call there, and for other arguments.
    """
    own, place = kernels_own(function), None if within is None else kernels_own(within)
    name = getattr(own, "__name__", repr(own))
    if not is_replaceable(own):
        raise TypeError(
            f"instead_of({name}): no function of the kernel (emulator.kernel) and no operation; "
            "migrc functions lists them"
        )
    if place is not None and not inspect.isfunction(place):
        raise TypeError(f"instead_of({name}, within={place!r}): within is a function of the kernel")
    if place is None and inspect.isclass(own):
        raise TypeError(f"instead_of({name}): within which function? All of the kernel uses it")
    if place is not None and name not in called(place):
        there = ", ".join(sorted(one for one in called(place) if _is_known(place, one)))
        raise TypeError(
            f"instead_of({name}, within={place.__name__}): it is not called there; what is: {there}"
        )

    def mark(method: Method) -> Method:
        if not inspect.isclass(own) and inspect.iscoroutinefunction(method) != inspect.iscoroutinefunction(
            own
        ):
            raise TypeError(
                f"{method.__qualname__}: {'' if inspect.iscoroutinefunction(own) else 'not '}async, "
                f"as {name} is"
            )
        with_cpu = inspect.isclass(own) and list(inspect.signature(method).parameters)[1:2] == ["cpu"]
        _takes_the_same(method, own, with_cpu)
        method.instead_of = Instead(own, place, with_cpu)  # type: ignore[attr-defined]
        return method

    return mark


def note_call(method: Callable[..., Any]) -> None:
    """A method of a policy has been called."""
    _CALLED.add(inspect.unwrap(method).__code__)


def was_called(method: Callable[..., Any]) -> bool:
    """A method that stands for something, or a hook that is held to its answers, was, in this process."""
    return inspect.unwrap(method).__code__ in _CALLED


def kernels_own(function: Any) -> Any:
    """The kernel's own function behind a branch; whatever else it is."""
    return getattr(function, "kernels_own", function)


def _takes_the_same(method: Callable[..., Any], own: Any, with_cpu: bool) -> None:
    """TypeError for a method that cannot be called as what it stands for is."""
    wanted = [one for one in inspect.signature(own).parameters.values() if one.name != "_cls"]
    try:
        needed = [one for one in wanted if one.default is one.empty]
        inspect.signature(method).bind(None, *([None] if with_cpu else []), *needed)
    except TypeError:
        takes = ", ".join(["self", *(str(one).replace("'", "") for one in wanted)])
        has = str(inspect.signature(method)).replace("'", "")
        raise TypeError(
            f"{method.__qualname__} takes {has}; in the place of {own.__name__} it takes ({takes})"
        ) from None


def called(function: Callable[..., Any]) -> set[str]:
    """The names that a function uses, in comprehensions too: what may be replaced `within` it is there."""
    return _names(function.__code__)


def _names(code: CodeType) -> set[str]:
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _is_known(place: Callable[..., Any], name: str) -> bool:
    """It is a function of the kernel or an operation where `place` stands."""
    return is_replaceable(kernels_own(place.__globals__.get(name)))


def is_replaceable(thing: Any) -> bool:
    """A function of the kernel, or an operation."""
    operation = inspect.isclass(thing) and thing in TABLE
    return operation or (inspect.isfunction(thing) and thing.__module__.startswith("emulator.kernel."))


def _replaced(policy: type[Policy]) -> dict[Any, tuple[tuple[str, Instead], ...]]:
    """By function, what a policy has instead: (name of the method, where); those for one place come first."""
    if policy in _TABLES:
        return _TABLES[policy]
    found: dict[Any, dict[str, Instead]] = {}
    for kind in policy.__mro__:
        for name, value in vars(kind).items():
            mark = getattr(value, "instead_of", None)
            if isinstance(mark, Instead):
                found.setdefault(mark.function, {}).setdefault(name, mark)
    _TABLES[policy] = {
        function: tuple(sorted(methods.items(), key=lambda item: item[1].within is None))
        for function, methods in found.items()
    }
    return _TABLES[policy]


def make_way(policy: type[Policy]) -> None:
    """Put a branch in front of every function that this policy has something instead of, once and for all.

    Programs of tests call functions too; an operation is replaced in the kernel file that is meant only.
    """
    if policy in _READY:
        return
    _READY.add(policy)
    for function, methods in _replaced(policy).items():
        branch = _BRANCHES.setdefault(function, _branch(function))
        if "." in function.__qualname__ and not inspect.isclass(function):
            owner = getattr(sys.modules[function.__module__], function.__qualname__.partition(".")[0])
            setattr(owner, function.__name__, branch)
        only = (
            {mark.within.__module__ for _, mark in methods if mark.within}
            if inspect.isclass(function)
            else ()
        )
        for module in list(sys.modules.values()):
            names = vars(module) if isinstance(module, ModuleType) else {}
            if not only or names.get("__name__") in only:
                stands = (function, _series) if function is Series else (function,)
                found = [name for name, value in names.items() if any(value is one for one in stands)]
                names.update(dict.fromkeys(found, branch))
                if only:
                    names.update({name: _series for name, value in names.items() if value is Series})
        for name, registered in FUNCTIONS.items():
            if registered is function:
                FUNCTIONS[name] = branch


def kernel_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a kernel function is called by now, for those who have kept it."""
    return _BRANCHES.get(function, function)


def _branch(function: Any) -> Callable[..., Any]:
    own = f"{function.__name__}{inspect.signature(function)}".replace("'", "")

    @wraps(function, updated=())  # a class has more in its __dict__ than a function may
    def branch(*arguments: Any, **named: Any) -> Any:
        caller = sys._getframe(1)
        cpu = _cpu(arguments, caller)
        policy = None if cpu is None else cpu.policy
        for name, mark in _replaced(type(policy)).get(function, ()) if policy is not None else ():
            method = getattr(policy, name)
            code = inspect.unwrap(method.__func__).__code__
            if caller.f_code is not code and (mark.within is None or _is_of(caller, mark.within)):
                _CALLED.add(code)
                try:
                    return method(*((cpu,) if mark.with_cpu else ()), *arguments, **named)
                except TypeError as problem:
                    if problem.__traceback__ is not None and problem.__traceback__.tb_next is not None:
                        raise
                    text = str(problem).partition("() ")[2]
                    raise WrongCall(method.__qualname__, f"{text}; it is called as {own} is", code) from None
        return (_series if function is Series else function)(*arguments, **named)

    branch.kernels_own = function  # type: ignore[attr-defined]
    return branch


def _series(members: tuple[Any, ...]) -> Any:
    """Series, of which a policy may have something instead of some: each is a step of its own anyway."""
    return _one_by_one(members) if any(map(inspect.iscoroutine, members)) else Series(members)


_series.kernels_own = Series  # type: ignore[attr-defined]


async def _one_by_one(members: tuple[Any, ...]) -> list[Any]:
    return [await one for one in members]


def _cpu(arguments: tuple[Any, ...], caller: FrameType | None) -> PerCpu | None:
    """The CPU that runs this: the first argument (a method's second), or `cpu` of the nearest
    caller."""
    for one in arguments[:2]:
        if isinstance(one, PerCpu):
            return one
    while caller is not None:
        cpu = caller.f_locals.get("cpu")
        if isinstance(cpu, PerCpu):
            return cpu
        caller = caller.f_back
    return None


def _is_of(frame: FrameType, function: Callable[..., Any]) -> bool:
    """The frame is the function's, or of a comprehension in it."""
    own = frame.f_code.co_qualname.partition(".<locals>")[0]
    return own == function.__qualname__ and frame.f_globals.get("__name__") == function.__module__
