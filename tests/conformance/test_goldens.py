"""The shipped litmus tests of others' names have the published verdicts, on every architecture."""

from __future__ import annotations

import pytest

from scenarios.conformance.judgement import AGREES, judged
from scenarios.conformance.suites import SUITES, goldens


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_every_golden_agrees(suite: str) -> None:
    about = SUITES[suite]
    found = [
        judged(entry, arch, about.bound, lambda: False) for entry in goldens(suite) for arch in about.archs
    ]
    assert {(one.entry.name, one.arch, one.kind, one.reason) for one in found if one.kind != AGREES} == set()


def test_goldens_are_many_and_of_both_verdicts() -> None:
    every = [one for suite in SUITES for one in goldens(suite)]
    assert len(every) >= 140 and len({one.name for one in every}) == len(every)
    architectures_of = {"lkmm": ("sc", "x86", "riscv"), "riscv": ("",), "arm64-vmsa": ("",), "esop": ("",)}
    assert architectures_of.keys() == SUITES.keys()
    for suite, architectures in architectures_of.items():
        for arch in architectures:
            verdicts = {one.allowed[arch] for one in goldens(suite)}
            assert verdicts == ({False} if arch == "sc" else {False, True})
