"""`migrc replay` and `migrc shrink`: what is drawn, when the exit code is 1, and what is kept of a file."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.files.witness import Witness, load, save

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

SB = ("--litmus", "small.py:SB", "--policy", "immediate", "--arch", "x86")
# Longer than need be: CPU 1 runs to its end first.
LONG = "0*2 1*3 p1.0*2 0*2"


@pytest.fixture
def witness(folder: Path) -> Path:
    """A witness of small.py's SB on x86."""
    path = folder / "sb.mpk"
    save(
        Witness(
            litmus="SB",
            file=str(folder / "small.py"),
            policy="immediate",
            arch="x86",
            schedule=LONG,
            rule="store buffering",
        ),
        path,
    )
    return path


def test_a_file_is_replayed_and_drawn(witness: Path, migrc: Migrc, capsys: Captured) -> None:
    assert migrc("replay", "sb.mpk", "--trust") == 1
    out, err = capsys.readouterr()
    assert out.startswith("SB under immediate on x86\n\n   CPU 0  ")
    assert out.endswith("\nbreaks: store buffering: both CPUs read 0\n")
    assert err == ""


def test_a_schedule_is_replayed(folder: Path, migrc: Migrc, capsys: Captured) -> None:
    assert migrc("replay", "0*3", *SB) == 0
    assert capsys.readouterr().out.endswith("\nno rule broke\n")
    assert migrc("replay", LONG, *SB, "--json", "--seed", "1") == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["rule"], document["text"]) == ("store buffering", "both CPUs read 0")
    assert document["schedule"] == LONG
    assert document["steps"] == len(document["columns"]) == 9
    assert document["columns"][0] == {"step": 1, "cpu": 0, "kind": "step", "text": "issues Store(x, 1)"}
    assert document["came_out_again"] is None


def test_a_schedule_comes_from_standard_input(
    folder: Path, migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(LONG + "\n"))
    assert migrc("replay", "-", *SB) == 1


def test_a_rule_that_does_not_come_out_again_is_said(
    witness: Path, folder: Path, migrc: Migrc, capsys: Captured
) -> None:
    text = (folder / "small.py").read_text()
    (folder / "other.py").write_text(text.replace('Forbidden("store buffering"', 'Forbidden("another"'))
    (folder / "shorter.py").write_text(text.replace("await Store(flag, 1)", "await Load(flag)"))
    for name, part in (("other.py", "did not come out again"), ("shorter.py", "did not come out again: ")):
        save(load(witness).model_copy(update={"file": str(folder / name)}), witness)
        assert migrc("replay", "sb.mpk", "--trust") == 1
        assert f"the file says 'store buffering', which {part}" in capsys.readouterr().out
        assert migrc("replay", "sb.mpk", "--trust", "--json") == 1
        assert json.loads(capsys.readouterr().out)["came_out_again"] is False
        assert migrc("shrink", "sb.mpk", "--trust") == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert "its rule does not come out again" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["replay", "nothing.mpk"], "nothing.mpk: no such file; a witness file, or a schedule with"),
        (["replay", "0*3", "--litmus", "small.py:SB"], "needs --policy and --arch too"),
        (["replay", "-"], "needs --litmus and --policy and --arch too"),
        (["replay", "zero", *SB], "token 1 of the schedule ('zero')"),
        (["replay", "0*9", *SB], "transition 5 (0) is not possible there"),
        (["replay", "7", *SB], "transition 1 (7) is not possible there"),
        (["replay", "0", "--litmus", "small.py", *SB[2:]], "2 tests; one, as FILE.py:NAME"),
        (["replay", "sb.mpk", "--arch", "sc"], "--arch: the witness file says that already"),
        (["replay", "small.py"], "small.py: not a witness"),
        (["replay", "."], "Is a directory"),
        (["shrink", "nothing.mpk"], "nothing.mpk: No such file"),
        (["shrink", "sb.mpk", "--trust", "--out", "/proc/no/x.mpk"], "/proc/no/x.mpk"),
        (["replay", "sb.mpk"], "small.py; --trust if that is your own code"),
        (["shrink", "sb.mpk"], "small.py; --trust if that is your own code"),
    ],
)
def test_bad_input_is_one_line(
    witness: Path, migrc: Migrc, capsys: Captured, arguments: list[str], part: str
) -> None:
    more = ["--seconds", "0.1"] if arguments[0] == "shrink" else []
    assert migrc(*arguments, *more) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("migrc: error: ")
    assert err.count("\n") == 1
    assert part in err


def test_shrink_replaces_a_file_only_by_a_better_one(
    witness: Path, folder: Path, migrc: Migrc, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It ends when it has tried so much, not when so much time has passed.
    monkeypatch.setattr("scenarios.runs.reduction.DETOURS", 2_000)
    longer = load(witness).model_copy(update={"schedule": "1 0*2 1*2 p1.0 0 p1.0 0"})
    save(longer, witness)
    assert migrc("shrink", "sb.mpk", "--trust", "--seconds", "60", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["before"], document["replaced"], document["file"]) == (9, True, "sb.mpk")
    shorter = load(witness)
    assert shorter.schedule == document["schedule"]
    assert (shorter.rule, shorter.litmus) == (longer.rule, longer.litmus)
    assert migrc("shrink", "sb.mpk", "--trust", "--seconds", "60") == 0
    assert "sb.mpk stays as it was" in capsys.readouterr().out
    assert load(witness) == shorter
    assert migrc("shrink", "sb.mpk", "--trust", "--seconds", "60", "--out", "copy.mpk") == 0
    assert load(folder / "copy.mpk") == shorter
    assert migrc("replay", "copy.mpk", "--trust") == 1


@pytest.mark.parametrize("verb", ["replay", "shrink"])
def test_a_file_from_a_stranger_runs_nothing(
    witness: Path, migrc: Migrc, capsys: Captured, verb: str
) -> None:
    """Neither the test nor the policy that it names is imported, though both lie there."""
    name = f"evil_{verb}"  # a module is imported once
    evil = witness.parent / f"{name}.py"
    evil.write_text("import pathlib\npathlib.Path('done').touch()\n")
    named = load(witness)
    policy = {"file": "", "litmus": "shootdown", "policy": f"{name}:Evil"}
    for change, told in (({"file": str(evil)}, evil.name), (policy, f"{name}:Evil")):
        save(named.model_copy(update=change), Path("theirs.mpk"))
        assert migrc(verb, "theirs.mpk") == 2
        assert f"{told}; --trust" in capsys.readouterr().err
    assert not Path("done").exists()
    assert migrc(verb, "theirs.mpk", "--trust") == 2
    assert Path("done").exists()
