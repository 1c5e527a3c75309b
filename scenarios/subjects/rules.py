"""All rules that can break, and which of them a person means by `--rule` and `--ignore`.

A litmus program raises rules of its own (`Forbidden`); those of the tests at hand are read in their files.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from emulator.checks import accounting, coherence, frugality, grace_period
from emulator.checks.heed import Heed
from emulator.machine import progress
from emulator.memory import folios
from scenarios.subjects.modules import tree_of
from scenarios.subjects.programs import LitmusName, find_named
from scenarios.usage import UsageProblem, did_you_mean

RULES: Final = (
    *(coherence.OVERWRITTEN, coherence.FOREIGN, coherence.FREE, coherence.LOST_WRITE, coherence.FILL),
    *(coherence.CONTENT, coherence.CACHE, coherence.SPLIT),
    *(accounting.LEAK, accounting.REFERENCES, accounting.UNFINISHED, accounting.UNDECLARED, *folios.FAULTS),
    *(grace_period.REUSED, grace_period.WRITABLE, grace_period.COPIED, grace_period.WRITTEN_OUT),
    *(grace_period.REFILLED, grace_period.SHARED, grace_period.RANGE, grace_period.OWED),
    frugality.NEEDLESS,
    *(progress.DEADLOCK, progress.NO_END, progress.SILENCE, progress.ALLOCATION_FAILED),
    *(progress.SEGMENTATION_FAULT, progress.WAITS_WITH_INTERRUPTS_OFF),
)


def heed(rules: Sequence[str], ignored: Sequence[str], tests: Sequence[LitmusName]) -> Heed:
    """What a person means. UsageProblem for the name of no rule that these tests can break."""
    known = (
        dict.fromkeys([*RULES, *(rule for test in tests for rule in _own(test))]) if rules or ignored else {}
    )
    for option, patterns in (("--rule", rules), ("--ignore", ignored)):
        for pattern in patterns:
            if not any(fnmatchcase(rule, pattern) for rule in known):
                raise UsageProblem(f"{option}: no rule {pattern!r}; {did_you_mean(pattern, known)}")
    return Heed(tuple(rules), tuple(ignored))


def _own(test: LitmusName) -> list[str]:
    """The rules that a test expects to see broken, and what its module raises as Forbidden."""
    litmus = find_named(test)
    found = [rule for one in litmus.expected for rule in one.rules]
    for name in {body.__module__ for body in litmus.programs}:
        module = sys.modules[name]
        tree = tree_of(module)
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Forbidden") and node.args:
                rule = node.args[0]
                value = getattr(rule, "value", None) or vars(module).get(getattr(rule, "id", ""))
                found += [value] if isinstance(value, str) else []
    return found
