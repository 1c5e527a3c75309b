"""`migrc check --conformance`: how far a policy or an mmu may be trusted, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Migrc = Callable[..., int]
OWN = """from emulator.kernel.mmu.x86 import X86
from emulator.kernel.policy import Policy
from emulator.policies.immediate import Immediate


class Same(Immediate):
    name = "same"

    async def slowpath_enter(self, cpu):
        pass


class Nothing(Policy):
    name = "nothing"

    async def flush_zapped(self, *arguments):
        pass


class Flushes(X86):
    name = "flushes"
    settings = {"tlb_single_page_flush_ceiling": 0}


class WaitsForNobody(X86):
    name = "waits-for-nobody"

    async def flush_tlb_multi(self, cpu, mask, info, freed_tables):
        pass
"""
SMALL = ("shootdown", "munmap-range", "broadcast-synced")


@pytest.fixture
def own(folder: Path) -> None:
    (folder / "own.py").write_text(OWN)


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [
        ("own:Same", 0, "own:Same may be trusted in what was reached: 2 Never, each proved"),
        ("own.py:Flushes", 0, "own.py:Flushes may be trusted in what was reached: 2 Never, each proved"),
        ("own:Nothing", 1, "own:Nothing may not be trusted: grace period: "),
        ("own:WaitsForNobody", 1, "own:WaitsForNobody may not be trusted: grace period: "),
    ],
)
def test_the_last_line_says_whether_it_may_be_trusted(
    own: None, migrc: Migrc, capsys: pytest.CaptureFixture[str], name: str, code: int, verdict: str
) -> None:
    assert migrc("check", *SMALL, "--conformance", name, "--arch", "sc") == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith(verdict)
    assert f"conformance of {name}: 2 tests apply, 1 left out, which are about another mmu or policy" in lines
    assert ("  never called: slowpath_enter" in lines) == (name == "own:Same")


def test_an_mmu_is_asked_about_where_there_is_one(migrc: Migrc, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("check", "shootdown", "--conformance", "arm64") == 0
    assert (
        capsys.readouterr()
        .out.splitlines()[-1]
        .startswith("arm64 may be trusted in what was reached: 1 Never")
    )


def test_what_was_not_reached_is_no_praise(
    own: None, migrc: Migrc, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    """The test's counter is one that nothing counts."""
    (folder / "unreached.py").write_text(
        "from scenarios.litmus.kit import *\n"
        "expected = (never('immediate', 'nr_of_nothing'),)\n"
        "LITMUS = Litmus('unreached', '?', (bystander,), pages(PAGE), expected)\n"
    )
    assert migrc("check", "unreached.py", "--conformance", "own:Same", "--arch", "sc", "--json") == 0
    found = json.loads(capsys.readouterr().out)["conformance"]
    assert found["vacuous"] == [["unreached", "sc"]] and found["missed"] == ["nr_of_nothing"]
    assert found["verdict"] == "own:Same may not be trusted: nothing that a test is about was reached"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("other",), "--conformance: 'other' is no policy and no mmu; known: "),
        (
            ("own:Other",),
            "--conformance own:Other: no class of that name there is derived from Policy or Mmu",
        ),
        (("own:Same", "--policy", "immediate"), "--conformance and --history or --policy: one or the other"),
        (("x86", "--mmu", "x86"), "--conformance and --mmu: x86 is an mmu itself"),
    ],
)
def test_what_it_cannot_be_asked_about(
    own: None, migrc: Migrc, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    assert migrc("check", "shootdown", "--conformance", *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"migrc: error: {told}") and err.count("\n") == 1
