"""`migrc conformance` with directories of users, verdicts of their files, and what is wrong with either."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scenarios.verbs import conformance as verb

Migrc = Callable[..., int]
SB = """RISCV {}
{{ 0:x5=x; 0:x6=y; 1:x5=y; 1:x6=x; }}
 P0          | P1          ;
 li x7,1     | li x7,1     ;
 sw x7,0(x5) | sw x7,0(x5) ;
 fence {}    | fence {}    ;
 lw x8,0(x6) | lw x8,0(x6) ;
exists (0:x8=0 /\\ 1:x8=0)
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    """Three tests in a directory: with too weak a fence, with the right one, and one of mixed sizes."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "SB.litmus").write_text(SB.format("SB", "r,rw", "r,rw"))
    (tmp_path / "deep" / "SB+fences.litmus").write_text(SB.format("SB+fences", "rw,rw", "rw,rw"))
    (tmp_path / "half.litmus").write_text(SB.format("half", "rw,rw", "rw,rw").replace("lw", "lh"))
    return tmp_path


def test_verdicts_of_herds_output(migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tests / "herd.log"
    log.write_text("Observation SB Sometimes 1 3\nObservation SB+fences Never 0 3\n")
    assert migrc("conformance", "riscv", str(tests), "--expected", str(log), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"]["riscv"] == {
        "agree": 2,
        "too strong": 0,
        "too weak": 0,
        "no verdict": 0,
        "not translatable": 1,
        "not finished": 0,
    }
    assert {one["reason"] for one in document["tests"]} == {None, "accesses of mixed sizes"}


def test_what_is_forbidden_and_seen_is_told(
    migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tests / "expected.csv"
    listed.write_text("riscv/SB.litmus,0\nriscv/SB+fences.litmus,1\n")
    assert migrc("conformance", "riscv", str(tests), "--expected", str(listed)) == 1
    out = capsys.readouterr().out
    assert "too weak: SB on riscv: Sometimes (SB.litmus)" in out
    assert "too strong: SB+fences on riscv: Never" in out
    listed.write_text("riscv/SB+fences.litmus,1\n")
    assert migrc("conformance", "riscv", str(tests), "--expected", str(listed)) == 0


def test_final_states_of_herds_output(migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Herd's own lines of a run; less a state, which is then seen and should not be; and one more."""
    sb = ("conformance", "riscv", str(tests), "--name", "SB")
    assert migrc(*sb, "--herd") == 0
    lines = capsys.readouterr().out
    beside = tests / "SB.litmus.expected"
    beside.write_text(lines)
    assert migrc(*sb) == 0
    assert "too" not in capsys.readouterr().out.split("finished", 1)[1]
    beside.write_text(lines.replace("0:x8=1; 1:x8=1;\n", ""))
    assert migrc(*sb) == 1
    assert "final states that the verdict's run has not" in capsys.readouterr().out
    beside.write_text(lines.replace("States 4\n", "States 5\n0:x8=7; 1:x8=1;\n"))
    assert migrc(*sb) == 0
    assert "too strong: SB on riscv" in capsys.readouterr().out


def test_an_interrupt_keeps_what_is_finished(
    migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = verb.judged, []

    def once(*arguments: Any) -> Any:
        seen.append(arguments)
        if len(seen) > 1:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(verb, "judged", once)
    assert migrc("conformance", "riscv", str(tests), "--json") == 130
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document["interrupted"] and [one["test"] for one in document["tests"]] == ["SB"]
    assert "interrupted after 1 of 3" in captured.err


def test_time_that_is_over_is_told(migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("conformance", "riscv", str(tests), "--seconds", "0.000001", "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["riscv"]["not finished"] == 3


def test_herds_own_lines(migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert migrc("conformance", "riscv", str(tests), "--name", "SB*", "--herd") == 0
    assert capsys.readouterr().out.split("\n\n")[0].splitlines() == [
        "Test SB Allowed",
        "States 4",
        "0:x8=0; 1:x8=0;",
        "0:x8=0; 1:x8=1;",
        "0:x8=1; 1:x8=0;",
        "0:x8=1; 1:x8=1;",
        "Ok",
        "Witnesses",
        "Positive: 1 Negative: 3",
        r"Condition exists (0:x8=0 /\ 1:x8=0)",
        "Observation SB Sometimes 1 3",
    ]


def test_a_sample_is_drawn_by_its_seed(migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: int) -> list[str]:
        assert migrc("conformance", "riscv", str(tests), "--sample", "1", "--seed", str(seed), "--json") == 0
        return [one["test"] for one in json.loads(capsys.readouterr().out)["tests"]]

    assert drawn(1) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["riscv", "EMPTY"], "no file *.litmus below it begins with RISCV"),
        (["lkmm", "TESTS"], "no file *.litmus below it begins with C;"),
        (["riscv", "TESTS", "--name", "MP*"], "--name MP*: matches none of 3 tests; such as SB"),
        (["riscv", "TESTS", "--expected", "TESTS/SB.litmus"], "no verdict in it"),
        (["riscv", "TESTS", "--expected", "TESTS/none"], "No such file"),
        (["riscv", "--expected", "TESTS/SB.litmus"], "only with DIR"),
        (["riscv", "--arch", "x86"], "--arch x86: riscv is about riscv"),
        (["lkmm", "--herd"], "--herd: of which architecture?"),
        (["riscv", "--herd", "--json"], "one or the other"),
        (["power"], "'power' is not one of"),
    ],
)
def test_bad_input_is_told_in_one_line(
    migrc: Migrc,
    tests: Path,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    told: str,
) -> None:
    empty = str(tmp_path_factory.mktemp("empty"))
    given = [one.replace("TESTS", str(tests)).replace("EMPTY", empty) for one in arguments]
    assert migrc("conformance", *given) == 2
    captured = capsys.readouterr()
    assert told in captured.err and captured.err.count("\n") == 1 and not captured.out


@pytest.mark.parametrize("body", ["P0(int *) { WRITE_ONCE(*x, 1); }", "P0(int *x) { WRITE_ONCE(*x); }"])
def test_c_without_a_name_or_an_argument_is_not_translatable(
    migrc: Migrc, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    (tmp_path / "c.litmus").write_text(f"C c\n{{}}\n{body}\nexists (x=1)\n")
    assert migrc("conformance", "lkmm", str(tmp_path), "--arch", "sc") == 0
    assert "1 for C in another form" in capsys.readouterr().out


def test_a_file_that_is_no_test_is_one_that_is_not_translatable(
    migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deep = SB.format("deep", "rw,rw", "rw,rw").replace("(0:x8=0", "(" + "not " * 1500 + "0:x8=0")
    (tests / "deep.litmus").write_text(deep + "\n")
    (tests / "broken.litmus").write_text("RISCV broken\nnothing")
    (tests / "bytes.litmus").write_bytes(b"RISCV \xff\xfe{}\n P0 ;\n\nexists (x=1")
    assert migrc("conformance", "riscv", str(tests)) == 0
    out = capsys.readouterr().out
    assert "no litmus test" in out and ("1 for expressions nested too deeply" in out)


UNMAPPED = """AArch64 {}
{{
0:X0=(oa:phy_p,valid:0); 0:X1=pte_p; 0:X3=p;
}}
P0             ;
STR X0,[X1]    ;
DSB ISH        ;
LSR X4,X3,#12  ;
TLBI VAE1IS,X4 ;
DSB ISH        ;
{}             ;
G: LDR X2,[X3] ;
exists (~fault(P0:G,p))
"""


def test_tests_of_translations_with_their_kinds(
    migrc: Migrc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.litmus").write_text(UNMAPPED.format("without", "NOP"))
    (tmp_path / "b.litmus").write_text(UNMAPPED.format("with", "ISB"))
    kinds = tmp_path / "kinds.txt"
    kinds.write_text("with    Forbidden\nwithout Allowed\n")
    run = ("conformance", "arm64-vmsa", str(tmp_path), "--expected", str(kinds))
    assert migrc(*run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["counts"]["arm64"]["agree"] == 2
    # A DSB holds translations with FEAT_ETS2.
    assert migrc(*run, "--ets2") == 0
    assert "too strong: without on arm64: Never" in capsys.readouterr().out
    kinds.write_text("with, forbidden,17,,with, allowed\nwithout, forbidden,3\n")
    assert migrc(*run) == 1
    assert "too weak: without on arm64: Sometimes" in capsys.readouterr().out


def test_ets2_is_refused_where_nothing_is_translated(
    migrc: Migrc, tests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert migrc("conformance", "riscv", str(tests), "--ets2") == 2
    assert "--ets2: only of esop, arm64-vmsa" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (UNMAPPED.format("odd", "NOP").replace("\n{\n", "\nTTHM=P3:HA\n{\n"), "it names a thread"),
        (UNMAPPED.format("odd", "LSL X5,X4,X3"), "a shift by what is read"),
        (
            UNMAPPED.format("odd", "NOP").replace("exists (", "exists ([phy_p]=1 /\\ "),
            "a question about phy_p",
        ),
        (UNMAPPED.format("odd", "LDR X5,[X4]"), "an address of nothing that has a name"),
    ],
)
def test_odd_texts_are_told_by_reason(
    migrc: Migrc, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, reason: str
) -> None:
    (tmp_path / "odd.litmus").write_text(text)
    assert migrc("conformance", "arm64-vmsa", str(tmp_path)) == 0
    assert f"not translatable: 1 for {reason}" in capsys.readouterr().out.replace("no litmus test: ", "")
