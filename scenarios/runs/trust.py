"""Conformance of one policy or mmu: the tests that apply to it, and how far it may be trusted after them.

Nothing is searched or judged here: results are those of a check, with the expectations of what it is `like`.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from emulator.kernel.instead import was_called
from emulator.kernel.mmu.catalogue import MMUS
from emulator.kernel.mmu.mmu import Mmu
from emulator.kernel.policy import Policy
from emulator.policies.catalogue import POLICIES
from scenarios.litmus import LITMUS
from scenarios.runs.verdict import MAINLINE, Result
from scenarios.subjects.hooks import own_and_base
from scenarios.subjects.mmus import DEFAULT_MMU, mmu_class
from scenarios.subjects.own_classes import is_derived, looks_own, wrong
from scenarios.subjects.policies import is_shipped, policy_factory
from scenarios.subjects.programs import LitmusName, find_named
from scenarios.usage import UsageProblem, did_you_mean

_OPTION: Final = "--conformance"


@dataclass(frozen=True, slots=True)
class Conformance:
    """What is asked about, by name: with which `policies` and `mmu` the `tests` are run.

    `methods`: those of the user's own class that the kernel would call, by name. `left_out`: tests about
    something else. `archs`: those that an mmu is of, where it is not of all that tests are about.
    """

    name: str
    tests: tuple[LitmusName, ...]
    policies: tuple[str, ...]
    mmu: str | None
    left_out: int = 0
    methods: dict[str, Any] = field(default_factory=dict)
    archs: tuple[str, ...] = ()


def conformance_of(name: str, tests: Sequence[LitmusName], mmu: str | None) -> Conformance:
    """Of a policy, shipped or somebody's own, or an mmu; `tests` are all shipped ones if none is given.

    A policy is asked about with `mmu`, or with x86 in the tests about that. An mmu is asked about under
    mainline's policy, in the tests about x86 and those about what it is derived from.
    UsageProblem if the name means neither, or no test applies.
    """
    asked = tuple(tests) or tuple(LitmusName(one) for one in LITMUS)
    is_mmu = name in MMUS or (looks_own(name) and not is_shipped(name) and is_derived(name, Mmu, _OPTION))
    own = looks_own(name) and not is_shipped(name) and name not in MMUS
    if own and not is_mmu and not is_derived(name, Policy, _OPTION):
        raise wrong(_OPTION, name, "no class of that name there is derived from Policy or Mmu")
    if is_mmu and mmu is not None:
        raise UsageProblem(f"{_OPTION} and --mmu: {name} is an mmu itself")
    if not is_mmu and not is_shipped(name) and not looks_own(name):
        known = did_you_mean(name, [*POLICIES, *MMUS])
        raise UsageProblem(
            f"{_OPTION}: {name!r} is no policy and no mmu; {known}, or your own as module:Class"
        )
    if is_mmu:
        found: Any = mmu_class(name, _OPTION)
        about = [one for one in asked if _asks_mainline(one) and _fits(found, find_named(one).mmu)]
        archs = () if set(mmu_class(DEFAULT_MMU).archs) <= set(found.archs) else tuple(found.archs)
        apart, methods = len(asked) - len(about), _own(found, Mmu)
        asks = Conformance(name, tuple(about), (MAINLINE,), name, apart, methods, archs)
    else:
        found = policy_factory(name)
        about = [one for one in asked if mmu is not None or find_named(one).mmu == DEFAULT_MMU]
        methods = _own(found, Policy) if isinstance(found, type) else {}
        asks = Conformance(name, tuple(about), (name,), mmu, len(asked) - len(about), methods)
    if not about:
        raise UsageProblem(f"{_OPTION} {name}: none of these tests is about it")
    return asks


def _asks_mainline(test: LitmusName) -> bool:
    return any(one.policy == MAINLINE for one in find_named(test).expected)


def _fits(found: type[Mmu], of_test: str) -> bool:
    return of_test == DEFAULT_MMU or issubclass(found, mmu_class(of_test))


def _own(found: type, root: type) -> dict[str, Any]:
    own, base = own_and_base(found, root)
    names = dict.fromkeys(name for one in own for name in vars(one) if not name.startswith("_"))
    methods = {name: inspect.getattr_static(found, name) for name in names}
    return {
        name: method
        for name, method in methods.items()
        if inspect.isfunction(method)
        and (hasattr(method, "instead_of") or inspect.isfunction(getattr(base, name, None)))
    }


@dataclass(frozen=True, slots=True)
class Trust:
    """What the results of such a run are worth, by what came out.

    `alike` break what the test expects of it, or of what it is like. `missed`: counters that no run of any
    test has counted; `uncalled`: methods of the user's own that were never called in this process.
    """

    of: Conformance
    broken: tuple[Result, ...]
    errors: tuple[Result, ...]
    alike: tuple[Result, ...]
    vacuous: tuple[Result, ...]
    proved: tuple[Result, ...]
    searched: tuple[Result, ...]
    left_out: tuple[Result, ...]
    missed: tuple[str, ...]
    uncalled: tuple[str, ...]

    @property
    def applied(self) -> set[str]:
        """The tests that were run."""
        parts = (self.broken, self.errors, self.alike, self.vacuous, self.proved, self.searched)
        return {one.job.subject.name for part in parts for one in part}

    @property
    def verdict(self) -> str:
        """Whether it may be trusted, and to which extent."""
        name = self.of.name
        if self.errors:
            return f"{name} may not be trusted: {len(self.errors)} of its runs ended in an error"
        if self.broken:
            first = self.broken[0]
            assert first.witness is not None
            subject, more = first.job.subject, len(self.broken) - 1
            others = f", and {more} more" if more else ""
            return (
                f"{name} may not be trusted: {first.witness.rule} in {subject.name} on {subject.arch}{others}"
            )
        sound = (*self.proved, *self.searched)
        if not sound:
            return f"{name} may not be trusted: nothing that a test is about was reached"
        proved, never = len(self.proved), len(sound)
        how = "each proved" if proved == never else f"{proved:,} proved, {never - proved:,} searched only"
        text = f"{name} may be trusted in what was reached: {never:,} Never, {how}"
        likes = dict.fromkeys(one.job.like or name for one in self.alike)
        text += f"; {len(self.alike):,} break as expected of {' and '.join(likes)}" if self.alike else ""
        return text + (f"; of {len(self.vacuous):,} nothing is known" if self.vacuous else "")


def trust(of: Conformance, results: Sequence[Result]) -> Trust:
    """Sort the results of a conformance run."""
    done = [one for one in results if not one.job.left_out]
    errors = tuple(one for one in done if one.error or one.endless)
    rest = [one for one in done if not one.error and not one.endless]
    broken = tuple(one for one in rest if one.witness is not None and one.reason)
    alike = tuple(one for one in rest if one.witness is not None and not one.reason)
    calm = [one for one in rest if one.witness is None]
    vacuous = tuple(one for one in calm if one.unreached or one.reason)
    sound = [one for one in calm if not one.unreached and not one.reason]
    counted = {name for one in done for name in one.job.reached if name not in one.unreached}
    missed = {name for one in done for name in one.unreached} - counted
    return Trust(
        of,
        broken,
        errors,
        alike,
        vacuous,
        tuple(one for one in sound if one.complete),
        tuple(one for one in sound if not one.complete),
        tuple(one for one in results if one.job.left_out),
        tuple(sorted(missed)),
        tuple(name for name, method in of.methods.items() if not was_called(method)),
    )
