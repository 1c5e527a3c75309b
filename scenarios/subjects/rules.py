"""All rules that can break, and which of them a person means by `--rule` and `--ignore`.

A litmus program raises rules of its own (`Forbidden`); those of the tests at hand are read in their files.
What a person leaves out is named in every answer: a *Never* is one of the rules that were looked at.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from emulator.checks import accounting, coherence, frugality, grace_period, luf_debug, table_walks, two_sizes
from emulator.checks.heed import ALL, Heed
from emulator.machine import progress
from emulator.memory import folios
from scenarios.litmus import steps
from scenarios.subjects.litmus_files import where_of
from scenarios.subjects.modules import tree_of
from scenarios.subjects.programs import LitmusName, find_named, modules_of
from scenarios.usage import UsageProblem, did_you_mean

RULES: Final = (
    *(coherence.OVERWRITTEN, coherence.FOREIGN, coherence.FREE, coherence.LOST_WRITE, coherence.FILL),
    *(coherence.CONTENT, coherence.CACHE, coherence.SPLIT, coherence.DROPPED),
    *(accounting.LEAK, accounting.REFERENCES, accounting.UNFINISHED, accounting.UNDECLARED, *folios.FAULTS),
    *(grace_period.REUSED, grace_period.WRITABLE, grace_period.COPIED, grace_period.WRITTEN_OUT),
    *(grace_period.REFILLED, grace_period.SHARED, grace_period.RANGE),
    *(grace_period.RETURNED, grace_period.OWED),
    grace_period.DEVICE,
    *(frugality.NEEDLESS, table_walks.FREED_TABLE, two_sizes.TWO_SIZES),
    *(progress.DEADLOCK, progress.NO_END, progress.SILENCE, progress.ALLOCATION_FAILED),
    *(progress.SEGMENTATION_FAULT, progress.WAITS_WITH_INTERRUPTS_OFF),
)


_AT_THE_END: Final = (
    *(accounting.LEAK, accounting.REFERENCES, accounting.UNFINISHED, accounting.UNDECLARED, *folios.FAULTS),
    grace_period.OWED,
)


_ASKED_FOR: Final = (*grace_period.STRICT, luf_debug.OWING)
"""Rules that are looked at where somebody asks for them."""


class Looked(NamedTuple):
    """The rules that were looked at in a subject's runs, and those that a person left out."""

    at: tuple[str, ...]
    not_at: tuple[str, ...]

    def __str__(self) -> str:
        """Which were not looked at, in words; empty if all were."""
        few, many = sorted((self.at, self.not_at), key=len)
        names = ", ".join(map(repr, few))
        which = names if few is self.not_at else f"all but {names}"
        return (
            f"not looked at: {len(self.not_at)} of {len(few) + len(many)} rules, {which}"
            if self.not_at
            else ""
        )


def looked(heed: Heed, test: LitmusName | None = None, debugged: bool = True) -> Looked:
    """What these rules are of a litmus test, or of a workload; `debugged`: LUF_DEBUG has its words."""
    if not heed:
        return Looked(RULES, ())
    rules = (*(RULES if test is None else _of(test)), *filter(heed.asks, _ASKED_FOR))
    rules = tuple(dict.fromkeys(one for one in rules if debugged or one != luf_debug.OWING))
    return Looked(
        tuple(rule for rule in rules if heed.counts(rule)),
        tuple(rule for rule in rules if not heed.counts(rule)),
    )


def heed(rules: Sequence[str], ignored: Sequence[str], tests: Sequence[LitmusName]) -> Heed:
    """What a person means. UsageProblem for the name of no rule of these tests, and where no rule is left."""
    if not rules and not ignored:
        return ALL
    known = dict.fromkeys([*RULES, *_ASKED_FOR, *(rule for test in tests for rule in _own(test))])
    for option, patterns in (("--rule", rules), ("--ignore", ignored)):
        for pattern in patterns:
            if not any(fnmatchcase(rule, pattern) for rule in known):
                raise UsageProblem(f"{option}: no rule {pattern!r}; {did_you_mean(pattern, known)}")
    found = Heed(tuple(rules), tuple(ignored))
    if not any(map(found.counts, known)):
        given = " and ".join(
            option for option, patterns in (("--rule", rules), ("--ignore", ignored)) if patterns
        )
        raise UsageProblem(f"{given}: no rule is left to look at; leave one, {RULES[0]!r} for example")
    return found


def heed_of(test: LitmusName, given: Heed) -> Heed:
    """Which rules count in a test's runs: what the test itself says, and what was given on top.

    Rules that were given to be looked at alone take the place of the test's.
    """
    litmus = find_named(test)
    return Heed(given.rules or litmus.rules, tuple(dict.fromkeys((*litmus.ignore, *given.ignored))))


def check_rules(test: LitmusName) -> None:
    """UsageProblem for a rule in a test of a user's own that nothing can break, or a pattern for none."""
    litmus = find_named(test)
    raised, readable = _raised(test)
    if not test.file or not readable:
        return
    known = dict.fromkeys((*RULES, *_ASKED_FOR, *raised))
    for title, names in (
        *((f"expected of {one.policy}", one.rules) for one in litmus.expected),
        ("rules", litmus.rules),
        ("ignore", litmus.ignore),
    ):
        for name in names:
            if not any(fnmatchcase(rule, name) for rule in known):
                raise UsageProblem(
                    f"{where_of(litmus, test.file)}: {title}: no rule {name!r}; {did_you_mean(name, known)}"
                )


def _of(test: LitmusName) -> tuple[str, ...]:
    """The rules that are judged in a test's runs."""
    litmus = find_named(test)
    out = {*(() if litmus.drain else _AT_THE_END), *(() if litmus.frugal else (frugality.NEEDLESS,))}
    return tuple(dict.fromkeys(rule for rule in (*RULES, *_own(test)) if rule not in out))


def _own(test: LitmusName) -> list[str]:
    """The rules that a test expects to see broken, and what its modules raise as Forbidden."""
    litmus = find_named(test)
    return [rule for one in litmus.expected for rule in one.rules] + _raised(test)[0]


def _raised(test: LitmusName) -> tuple[list[str], bool]:
    """The rules that a test's modules raise as Forbidden, and whether all can be read there."""
    found: list[str] = []
    readable = True
    modules = {body.__module__: sys.modules[body.__module__] for body in find_named(test).programs}
    modules |= {steps.__name__: steps, **{one.__name__: one for one in modules_of(test)}}
    for module in modules.values():
        tree = tree_of(module)
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Forbidden") and node.args:
                rule = node.args[0]
                value = getattr(rule, "value", None) or vars(module).get(getattr(rule, "id", ""))
                found += [value] if isinstance(value, str) else []
                readable &= isinstance(value, str)
    return found, readable
