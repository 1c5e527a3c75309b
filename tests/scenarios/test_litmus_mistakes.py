"""What is wrong with a litmus test of one's own is one line with file and line, field by field."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HEAD = """from scenarios.litmus.kit import *
from emulator.kernel.mremap import move_ptes


async def nothing(cpu):
    await Load("x")


class Before(Immediate):
    @instead_of(move_ptes)
    async def moves(self, cpu, mm, start, end, by):
        pass


def made(programs=(nothing,), setup=pages(PAGE), expected=(never("immediate"),), **more):
    return Litmus("mine", "?", programs, setup, expected, **more)


"""
LINE = HEAD.count("\n") + 1

MISTAKES = {
    "made(name=1)": "TypeError: ",
    "made(mmu=['x86'])": "mmu is ['x86']; did you mean x86? known: arm64, early-ack, ",
    "made(settings=(('version', ['6.1']),))": "setting version is ['6.1']; text, one of '6.1', '6.6', '6.12'",
    "made(settings=(('version', 6.1),))": "setting version is 6.1; text, one of '6.1', '6.6', '6.12'",
    "made(settings=(('devices', (1,)),))": "litmus setting devices: 1 is not (CPU, mm) with a CPU",
    "made(settings=(('devices', ((0, 'a'),)),))": "litmus setting devices: (0, 'a') is not (CPU, mm) with",
    "made(settings=(('guests', (('a', 1, 1, 1),)),))": "litmus setting guests: ('a', 1, 1, 1) is not (CPU,",
    "made(settings=(('ksm', True), ('ksm', False)))": "setting ksm is given 2 times; once",
    "Litmus('mine', '?', (nothing,), pages(PAGE))": "TypeError: Litmus.__init__() missing 1 required",
    "Litmus('', '?', (nothing,), pages(PAGE), ())": "name is ''; a name",
    "made(programs=nothing)": "programs is <function nothing",
    "made(programs=())": "it has no program; one for each CPU, and at least one CPU",
    "made(programs=(move,))": "the program move takes (cpu: PerCpu, pfn: int, target: int = 1) -> bool; ",
    "made(programs=(lambda cpu: 1,))": "the program <lambda> must be a function made with async def",
    "made(programs=(nothing(1),))": "the program nothing is called already; call(nothing, ...) makes a",
    "made(programs=(call(move, 1, 2, 3),))": "call(move, ...): too many positional arguments; it is move(cpu",
    "made(programs=(in_order(nothing, 7),))": "in_order: step 2, 7, is no program and no operation",
    "made(programs=(call(7),))": "call(7, ...): not a function",
    "made(setup=pages)": "the start cannot be set up: ValueError: the setup answers <function pages",
    "made(setup=starts(pages))": "ValueError: starts: a part answers <function pages",
    "made(setup=pages(0x99))": "ValueError: pages: page 153 is outside of the area, 4 pages from 16",
    "made(setup=pages(PAGE, cached=(9,)))": "ValueError: litmus setup: CPU 9; there are 1, from 0",
    "made(setup=pages(PAGE, node=5))": "ValueError: litmus setup: node 5; 0 is the fast one",
    "made(setup=7)": "the setup 7 must be a function made with def",
    "made(setup=huge_page())": "ValueError: litmus setup: no huge page without the setting",
    "made(expected=never('immediate'))": "expected is Expectation(policy='immediate'",
    "made(expected=('immediate',))": "expected is ('immediate',); a tuple of never(...)",
    "made(expected=(never('imediate'),))": "unknown policy 'imediate'; did you mean immediate?",
    "made(expected=(never(7),))": "7 is no policy: its name, or a class derived from Policy",
    "made(expected=(Expectation('immediate', 'never', None, None),))": "it expects 'never' of immediate on ",
    "made(expected=(Expectation('immediate', None, None, None, 'x'),))": "reached of what it expects of ",
    "made(expected=(sometimes(Before, 'deadlok'),))": "no rule 'deadlok'; did you mean deadlock?",
    "made(ignore='deadlock')": "ignore is 'deadlock'; a tuple of names",
    "made(ignore=('deadlok',))": "ignore: no rule 'deadlok'; did you mean deadlock?",
    "made(rules=('grace periods*',))": "rules: no rule 'grace periods*'; ",
    "made(settings={'hpage_order': 1})": "settings is {'hpage_order': 1}; a tuple of (name, value)",
    "made(settings=(('hpage_ordr', 1),))": "no setting 'hpage_ordr'; did you mean hpage_order? known: ",
    "made(settings=(('hpage_order', '1'),))": "setting hpage_order is '1'; a number, from 0",
    "made(settings=(('pcid', 0),))": "setting pcid is 0; True or False",
    "made(settings=(('version', '6.7'),))": "setting version is '6.7'; did you mean 6.6? known: ",
    "made(settings=(('cpus', 3),))": "setting cpus: no setting; programs, fast, slow, marks",
    "made(drain='no')": "drain is 'no'; True or False",
    "made(fast=0)": "fast is 0; a number of frames, from 1",
    "made(speculated=PAGE)": "speculated is 16; a tuple of pages",
    "made(marks=3)": "marks is 3; Watermarks(min, low, high)",
    "made(only='immediate')": "only is 'immediate'; a class derived from Policy",
    "made(); AGAIN = made()": "two litmus tests are named 'mine', the other one in mine.py:",
    "made(programs=(call(move, 1, FAST),))": "ValueError: move of frame 1 to node 0, where it is: ",
    "made(programs=(call(lambda cpu: 3),))": "TypeError: call(<lambda>, ...): it answers 3, nothing to await",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_line(
    text: str, folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(f"{HEAD}LITMUS = {text}\n")
    assert migrc("check", "mine.py", "--arch", "sc") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and MISTAKES[text] in err, err
    assert "mine.py:" in err


def test_the_line_is_that_of_the_test(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(f"{HEAD}LITMUS = made(fast=0)\n")
    assert migrc("check", "mine.py") == 2
    assert f"mine.py:{LINE}: mine: fast is 0" in capsys.readouterr().err


def test_a_program_that_answers_a_program_is_told(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(f"{HEAD}async def wrong(cpu):\n    return mover\nL = made((wrong,))\n")
    assert migrc("check", "mine.py") == 2
    assert "TypeError: the program answers <function " in capsys.readouterr().err


def test_two_files_with_a_test_of_one_name(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.py").write_text(f"{HEAD}LITMUS = made()\n")
    assert migrc("check", "a.py", "b.py") == 2
    said = capsys.readouterr().err
    assert f"two litmus tests are named 'mine': a.py:{LINE} and b.py:{LINE}; one name each" in said


def test_a_method_that_nobody_called_is_named_with_where_it_would_be(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(f"{HEAD}LITMUS = made(expected=(sometimes(Before, RETURNED),))\n")
    assert migrc("check", "mine.py", "--arch", "sc") == 1
    said = capsys.readouterr().out
    assert "expected Sometimes; Before.moves was never called: move_ptes, called by move_page_tables" in said
    assert "what gets there: mremap" in said


def test_a_counter_that_nobody_has_is_told_the_closest(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.py").write_text(f"{HEAD}LITMUS = made(expected=(never('immediate', 'pgfalt'),))\n")
    assert migrc("check", "mine.py", "--arch", "sc") == 1
    assert "vacuous: no run counted pgfalt; did you mean pgfault?" in capsys.readouterr().out


def test_rules_of_a_test_count_and_the_command_line_comes_on_top(
    folder: Path, migrc: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "async def bad(cpu):\n    await Load('x')\n    raise Forbidden('this', 'text')\n"
        "LITMUS = made((bad, nothing), expected=(EXPECTED,), IGNORED)\n"
    )
    for ignored, code in (("ignore=('thi*',)", 0), ("rules=('deadlock',)", 0), ("rules=('this',)", 1)):
        text = body.replace("IGNORED", ignored).replace("EXPECTED", "never('immediate')")
        (folder / f"m{code}{len(ignored)}.py").write_text(HEAD + text)
        assert migrc("check", f"m{code}{len(ignored)}.py", "--arch", "sc") == code, ignored
        assert "not looked at: " in capsys.readouterr().out
    text = body.replace("IGNORED", "ignore=('this',)").replace("EXPECTED", "sometimes('immediate')")
    (folder / "some.py").write_text(HEAD + text)
    assert migrc("check", "some.py", "--arch", "sc") == 1
    assert "UNEXPECTED: expected Sometimes" in capsys.readouterr().out
    assert migrc("check", "some.py", "--arch", "sc", "--rule", "deadlock") == 0


def test_a_second_pair_of_words_is_another_pair(folder: Path, migrc: Callable[..., int]) -> None:
    text = (
        "async def counted(cpu):\n    cpu.count('seen')\n\n\n"
        "OURS = made((in_order(returns, call(returns, 'b')), once_returned(counted, of='b')),\n"
        "            expected=(never('immediate', 'seen'),))\n"
    )
    (folder / "two.py").write_text(HEAD + text)
    assert migrc("check", "two.py", "--arch", "sc") == 0
    (folder / "three.py").write_text(HEAD + text.replace("of='b'", "of='c'"))
    assert migrc("check", "three.py", "--arch", "sc") == 1
