"""The drawing of an interleaving: the words of every kind of step, widths, and where it ends."""

from __future__ import annotations

import random

import pytest

from emulator.explore.schedule import parse_schedule
from emulator.hardware.cpu import Transition
from emulator.hardware.operations import FolioIsolateLru, Load, Store
from emulator.hardware.ordering import ARCHITECTURES
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.user import user_read, user_write
from emulator.machine.litmus import SLOW, Forbidden, Litmus, LitmusMachine, Setup
from emulator.machine.stepper import plain_engine
from emulator.policies.catalogue import POLICIES
from scenarios.drawing.columns import Drawing, draw

PAGE = 0x10


def setup(start: Setup) -> None:
    start.area(PAGE, 2)
    start.page(PAGE, writable=True)
    start.page(PAGE + 1)
    start.cache(1, PAGE)


async def mover(cpu: PerCpu) -> None:
    await FolioIsolateLru(1)
    await migrate_pages(cpu, [1], SLOW, MR_NUMA_MISPLACED)


async def user(cpu: PerCpu) -> None:
    await user_write(cpu, PAGE, 5)
    await user_read(cpu, PAGE)


MOVE = Litmus("move", "?", (mover, user), setup, (), speculated=(PAGE, PAGE + 1))


def machine(litmus: Litmus, arch: str) -> LitmusMachine:
    return LitmusMachine(litmus, ARCHITECTURES[arch], POLICIES["immediate"])


def any_schedule(built: LitmusMachine, seed: int) -> list[Transition]:
    engine = plain_engine(built)
    chance = random.Random(seed)
    taken = []
    while options := engine.transitions():
        taken.append(chance.choice(options))
        engine.take(taken[-1])
    return taken


@pytest.mark.parametrize("arch", list(ARCHITECTURES))
def test_every_step_of_a_run_has_one_line_in_its_cpus_column(arch: str) -> None:
    built = machine(MOVE, arch)
    schedule = any_schedule(built, 1)
    drawing = draw(built, schedule)
    assert [(step["step"], step["cpu"]) for step in drawing.steps] == [
        (number, transition.cpu) for number, transition in enumerate(schedule, 1)
    ]
    assert all(
        step["kind"] == one.kind.name.lower() for step, one in zip(drawing.steps, schedule, strict=True)
    )
    head, *lines = drawing.text(200).splitlines()
    for step, line in zip(drawing.steps, lines, strict=True):
        at = head.index(f"CPU {step['cpu']}")
        assert line[: at - 2].strip() == (str(step["step"]))
        assert line[at:] == step["text"]


def test_the_words_of_a_shootdown() -> None:
    words = set()
    for seed in range(40):
        for arch in ("x86", "riscv"):
            built = machine(MOVE, arch)
            words |= {step["text"] for step in draw(built, any_schedule(built, seed)).steps}
    for wanted in (
        "FolioIsolateLru(frame 1) = True",
        "AllocPages(node 1, 0, 0, 0) = frame 5",
        "FolioRmap(frame 1) = 0x10",
        "SendIpi(flush_tlb_func) -> 1",
        "takes IPI: flush_tlb_func of CPU 0",
        "  flushes its TLB",
        "  returns from IPI",
        "has all acknowledgements",
        "performs acknowledgement to CPU 0",
        "  issues acknowledgement to CPU 0",
        "write of 0x10: TLB miss",
        "write of 0x10: TLB has 1:rw,a, walk needed",
        "performs write of frame 1: version 5",
    ):
        assert wanted in words, sorted(words)
    assert any(text.startswith("TryToMigratePte(page 0x10, frame 1) was 1:") for text in words)
    assert any(text.startswith("walks 0x11 ahead: 4:ro") for text in words)
    assert any(text.startswith("walks 0x10 to write: ") for text in words)
    assert any(text.startswith("reads frame") or text.startswith("read of frame") for text in words)


def test_a_program_that_raises_ends_the_drawing_and_the_rule_stands_below() -> None:
    async def bad(cpu: PerCpu) -> None:
        await Store("x", 1)
        await Load("x")
        raise Forbidden("rule", "text")

    built = machine(Litmus("bad", "?", (bad, bad), lambda start: None, ()), "x86")
    drawing = draw(built, parse_schedule("1*2 0"))
    assert len(drawing.steps) == 2
    assert drawing.broken("rule", 1).text() == (
        "   CPU 0  CPU 1\n1         issues Store(x, 1)\n2         Load(x) = 1\n          ^^^ rule"
    )
    assert drawing.broken("rule", -1).text().endswith("\n   ^^^ rule")


def test_text_is_as_wide_as_it_needs_and_no_wider_than_it_may() -> None:
    built = machine(MOVE, "sc")
    drawing = draw(built, any_schedule(built, 2))
    natural = max(len(line) for line in drawing.text(10_000).splitlines())
    assert max(len(line) for line in drawing.text(natural + 50).splitlines()) == natural
    for width in (100, 60, 40):
        text = drawing.text(width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert text == text.rstrip()
        assert text.isascii()
        # Nothing is lost when it is folded.
        assert sum(line.strip().split(" ")[0].isdigit() for line in text.splitlines()) >= len(drawing.steps)


def test_nothing_happened() -> None:
    assert Drawing(2, ()).text() == "  CPU 0  CPU 1"


def test_a_step_that_is_not_possible_is_a_value_error() -> None:
    built = machine(MOVE, "sc")
    for schedule in ("0*99", "7", "p0.0", "i1", "w0.0x99"):
        with pytest.raises(ValueError, match=r"CPU|not possible|new|wait"):
            draw(built, parse_schedule(schedule))
