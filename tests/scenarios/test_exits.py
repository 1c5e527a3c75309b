"""What ends the command early reaches it."""

from __future__ import annotations

import ast
import gc
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.signals import Terminated, unwind
from emulator.hardware.operations import Load
from scenarios.verbs.exits import MEANINGS, keep_interrupts

HANG_S = 60
ROOT = Path(__file__).parents[2]
ENDS = ("exit", "_exit", "SystemExit")


def test_readme_has_the_table() -> None:
    section = (
        (ROOT / "README.md").read_text().partition("## Exit codes\n")[2].partition("Errors are one line")[0]
    )
    found = re.findall(r"(?:^|, )(\d+) ([^,(.]+)", " ".join(section.split()))
    assert {int(code): meaning.strip() for code, meaning in found} == MEANINGS


def codes_in(tree: ast.AST) -> Iterator[int]:
    """Numbers that a function answers, ends with, or says are an exit code."""
    for node in ast.walk(tree):
        values: list[ast.AST] = []
        if isinstance(node, ast.Return) and node.value is not None:
            values = [node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ENDS:
            values = list(node.args)
        elif isinstance(node, ast.Assign) and "exit_code" in map(ast.unparse, node.targets):
            values = [node.value]
        for value in values:
            parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
            yield from (
                one.value for one in parts if isinstance(one, ast.Constant) and type(one.value) is int
            )


@pytest.mark.parametrize("file", sorted((ROOT / "scenarios").glob("verbs/*.py")), ids=lambda file: file.stem)
def test_a_verb_ends_with_a_code_of_the_table_by_its_name(file: Path) -> None:
    assert set(codes_in(ast.parse(file.read_text()))) <= {0}


def test_no_other_code_is_made_anywhere() -> None:
    files = [ROOT / "scenarios" / "usage.py", ROOT / "scenarios" / "__main__.py"]
    assert {code for file in files for code in codes_in(ast.parse(file.read_text()))} <= {*MEANINGS}
    assert {*codes_in(ast.parse("def f():\n    raise SystemExit(5)\n    return 7 if x else y"))} == {5, 7}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_garbage_is_collected_is_not_lost(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    keep_interrupts()

    def interrupted(phase: str, _info: dict[str, int]) -> None:
        gc.callbacks.remove(interrupted)
        signal.raise_signal(number)

    deadline = time.monotonic() + HANG_S
    with pytest.raises(Terminated) as caught, unwind():
        gc.callbacks.append(interrupted)
        gc.collect()
        while time.monotonic() < deadline:
            time.sleep(0.01)
    assert caught.value.code == 128 + number


async def interrupted_when_dropped() -> None:
    try:
        await Load("word")
    finally:
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_while_a_program_is_dropped_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    keep_interrupts()
    program = interrupted_when_dropped()
    program.send(None)
    deadline = time.monotonic() + HANG_S
    with pytest.raises(KeyboardInterrupt):
        del program
        while time.monotonic() < deadline:
            time.sleep(0.01)
