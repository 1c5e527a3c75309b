"""A run that gets nowhere ends, at the same step every time, and says where everybody is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emulator.hardware.cpu import Cpu
from emulator.hardware.operations import (
    Cycle,
    Load,
    LocalIrqDisable,
    SendIpi,
    Touch,
    WaitAcks,
    WaitFor,
)
from emulator.machine.progress import NO_END, most_steps
from emulator.timed.engine import TimedEngine
from scenarios.verbs.cli import main
from tests.timed.timed_lab import engine_of

SPINS = """
from emulator.hardware.operations import Cycle, Load
from emulator.policies.migrc_rfc2 import MigrcRfc2


class Spins(MigrcRfc2):
    async def after_flush(self, cpu):
        while not await Load("never_set"):
            await Cycle()
"""


async def reads_for_ever(cpu: Cpu) -> None:
    while not await Load("x"):
        pass


async def deaf(cpu: Cpu) -> None:
    await LocalIrqDisable()
    while True:
        await Cycle()


async def interrupts_for_ever(cpu: Cpu) -> None:
    while True:
        await WaitAcks(await SendIpi((1,), "flush", (), True))


async def waits(cpu: Cpu) -> None:
    await WaitFor("y", 1)


@pytest.mark.parametrize("spinner", [reads_for_ever, deaf, interrupts_for_ever])
def test_a_run_without_a_user_access_ends(spinner: Callable[[Cpu], object]) -> None:
    outcomes = []
    for _ in range(2):
        engine: TimedEngine = engine_of(spinner, waits)  # type: ignore[arg-type]
        result = engine.run()
        (found,) = result.violations
        assert found.rule == NO_END
        assert (
            f"no user access in {most_steps(engine.memory, len(engine.cpus)):,} steps: CPU 0 " in found.text
        )
        assert found.text.endswith("; CPU 1 at WaitFor(y, 1) in waits") or spinner is interrupts_for_ever
        outcomes.append((found, result.clocks_ns))
    assert outcomes[0] == outcomes[1]


def test_where_a_cpu_spins_is_said() -> None:
    (found,) = engine_of(reads_for_ever).run().violations
    assert found.text.endswith("CPU 0 at Load(x) in reads_for_ever")
    (found,) = engine_of(deaf).run().violations
    assert found.text.endswith("CPU 0 with interrupts off at Cycle() in deaf")


def test_user_accesses_go_on_for_as_long_as_they_like() -> None:
    lab = engine_of(waits)
    steps = most_steps(lab.memory, len(lab.cpus)) * 2 // 3

    async def works(cpu: Cpu) -> None:
        for _ in range(3):
            for _ in range(steps):
                await Cycle()
            await Touch((2,), 0, 1)

    assert engine_of(works).run().violations == []


def test_a_policy_that_spins_is_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "spinning.py").write_text(SPINS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sizes = ("--set", "memory.fast_pages=256", "--set", "memory.min_free_pages=32")
    arguments = ("run", "tiering", "--engine", "timed", "--policy", "spinning:Spins", "--json", *sizes)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 1
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    (found,) = run["violations"]
    assert found["rule"] == NO_END
    assert "in Spins.after_flush" in found["text"]
