"""A litmus test by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.checks.grace_period import REUSED
from emulator.explore.schedule import ScheduleProblem, parse_schedule
from scenarios.runs.walkthrough import Walkthrough
from scenarios.subjects.programs import LitmusName
from scenarios.subjects.subject import Subject

Migrc = Callable[..., int]
Captured = pytest.CaptureFixture[str]

RACE = ("shootdown", "--policy", "mistake:no-wait-for-acknowledgements", "--arch", "x86")


@pytest.fixture
def typed(
    migrc: Migrc, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> Callable[..., tuple[int, str, str]]:
    """The verb with commands typed: exit code, standard output and error."""

    def run(commands: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(commands))
        code = migrc("step", *arguments)
        return (code, *capsys.readouterr())

    return run


Typed = Callable[..., tuple[int, str, str]]


def test_what_may_come_next_is_what_is_possible_and_undo_goes_back() -> None:
    walk = Walkthrough(Subject(LitmusName("shootdown"), "immediate", "x86").litmus_machine())
    begin = walk.nexts()
    seen = [begin]
    while (transition := walk.default()) is not None:
        assert transition in [parse_schedule(one.token)[0] for one in walk.nexts()]
        walk.take(transition)
        seen.append(walk.nexts())
    assert seen[-1] == [] and walk.violation is None and len(walk.path) > 30
    walk.back(2)
    assert walk.nexts() == seen[-3]
    with pytest.raises(ScheduleProblem, match="not possible here"):
        walk.take(parse_schedule("9")[0])
    assert walk.nexts() == seen[-3]
    walk.back(10**6)
    assert walk.nexts() == begin and walk.path == []


def test_a_witness_goes_its_way_and_comes_back_to_it(
    migrc: Migrc, capsys: Captured, tmp_path: Path, typed: Typed
) -> None:
    assert migrc("check", *RACE, "--save", str(tmp_path)) == 0
    capsys.readouterr()
    (witness,) = tmp_path.glob("*.mpk")
    code, _, errors = typed("g\n", str(witness), "--json")
    assert code == 1 and f"breaks: {REUSED}" in errors
    # Undone, it is gone again; another way is another end.
    code, output, _ = typed("g\nu 3\ng\n", str(witness), "--json")
    document = json.loads(output)
    assert (code, document["rule"]) == (1, REUSED)
    code, output, _ = typed("g\nu 3\n1*4\n", str(witness), "--json")
    document = json.loads(output)
    assert (code, document["rule"]) == (0, None) and document["schedule"].endswith("1*4") and document["next"]


def test_one_looks_around(typed: Typed) -> None:
    _, output, _ = typed("0*6\ntlb\npte\nframes\nwords\ncpus\ns\n", "shootdown")
    assert "CPU 1, PCID 2, mm 1\n  PCID 2 0x10: 1:ro,a" in output
    assert "mm 1 0x10: 1:migration" in output
    assert "frame 1, node 0: 2 references, mapped mm 1 0x10, version 7" in output
    assert "lock ptl.1.0: CPU 0" in output and "mm_cpumask.1 = 3" in output
    assert "try_to_migrate_one" in output and "\n0*6\n" in output


def test_i_stops_where_an_interrupt_has_been_taken(typed: Typed) -> None:
    _, output, _ = typed("i\n", "shootdown")
    taken = [line for line in output.splitlines() if "takes IPI" in line]
    assert len(taken) == 1 and output.partition(taken[0])[2].startswith("\nnext:")


def test_what_is_no_command_is_told_and_nothing_happens(typed: Typed) -> None:
    code, output, _ = typed("nonsense\nu x\nu -1\n9\n0*\n\0\ns\nq\n0\n", "shootdown")
    assert code == 0 and output.count("\n? ") == 6
    assert "nothing has happened yet" in output


def test_a_program_without_end_is_stopped(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forever.py").write_text(
        "from emulator.machine.litmus import Litmus\n"
        "from emulator.hardware.operations import Cycle\n"
        "async def spin(cpu):\n"
        "    while True:\n"
        "        await Cycle()\n"
        "FOREVER = Litmus('forever', 'Does it end?', (spin,), lambda setup: None, ())\n"
    )
    monkeypatch.setattr("scenarios.verbs.step.MOST_STEPS", 50)
    code, output, _ = typed("g\n", str(tmp_path / "forever.py"))
    assert code == 0 and "50 steps, and no end" in output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing-like-it",), "unknown litmus test"),
        (("shootdown", "--policy", "nobody"), "nobody"),
        (("shootdown", "--mmu", "nobody"), "nobody"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments: tuple[str, ...], says: str, typed: Typed) -> None:
    code, _, errors = typed("", *arguments)
    assert code == 2 and says in errors and errors.count("\n") == 1
