"""What deferral is for: fewer interrupts. A flush of everything pending asks each CPU once."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any

from emulator.hardware.operations import Operation, SendIpi
from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import FAST, Forbidden, Litmus
from scenarios.litmus.answers import DEFERRED, REUSED, postings_never, sometimes
from scenarios.litmus.starts import OTHER, PAGE, pages
from scenarios.litmus.steps import move, reader, reuse

NEEDLESS = "needless interrupt"


class Interrupts:
    """Runs a kernel function and notes whom it interrupts; awaited, it answers CPU -> how often."""

    def __init__(self, function: Coroutine[Operation, Any, Any]) -> None:
        self.function = function

    def __await__(self) -> Generator[Operation, Any, dict[int, int]]:
        answer = None
        sent: dict[int, int] = {}
        while True:
            try:
                operation = self.function.send(answer)
            except StopIteration:
                return sent
            if isinstance(operation, SendIpi):
                for target in operation.targets:
                    sent[target] = sent.get(target, 0) + 1
            answer = yield operation


async def _moves_and_flushes(cpu: PerCpu) -> None:
    await move(cpu, 1)
    await move(cpu, 2)
    for target, times in (await Interrupts(reuse(cpu, FAST))).items():
        if times > 1:
            raise Forbidden(NEEDLESS, f"one flush of what is pending interrupts CPU {target} {times} times")


# CPU 0                             CPU 1
# demote frame 1, demote frame 2
# no frame is free: flush
# IPI for both requests
#                                   handle it
# not a second IPI
TWICE = Litmus(
    name="interrupted-twice",
    question="May one attempt to flush interrupt the same CPU twice?",
    programs=(_moves_and_flushes, reader),
    setup=pages(PAGE, OTHER, cached=(1,)),
    expected=(
        *postings_never(DEFERRED, REUSED),
        sometimes("mistake:flushes-request-by-request", NEEDLESS),
    ),
    fast=2,
    slow=2,
)
