"""Cross-CPU function calls (kernel/smp.c): queue, interrupt, run the own part, wait for all.

The functions that may be called by name on another CPU register themselves here; the interrupt
entry runs whatever is queued, in order, and acknowledges each call when its function is through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from emulator.hardware.cpu import IpiRequest, Program
from emulator.hardware.operations import (
    AckIpi,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Operation,
    SendIpi,
    Series,
    SmpRmb,
    WaitAcks,
)
from emulator.kernel.percpu import PerCpu, is_lazy_word

Condition = Callable[[PerCpu, int, tuple[int, ...]], Awaitable[bool]]
IpiFunction = Callable[[PerCpu, tuple[int, ...]], Coroutine[Operation, Any, None]]
FUNCTIONS: dict[str, IpiFunction] = {}


def ipi_function(function: IpiFunction) -> IpiFunction:
    """Register a function that other CPUs may ask this one to run."""
    FUNCTIONS[function.__name__] = function
    return function


def interrupt_entry(cpu: PerCpu) -> Callable[[tuple[IpiRequest, ...]], Program]:
    """The handler of one CPU: kernel/smp.c: __flush_smp_call_function_queue, v6.6."""

    async def flush_smp_call_function_queue(batch: tuple[IpiRequest, ...]) -> None:
        for request in batch:
            acknowledged = request.wait and await cpu.mmu.acknowledge(cpu, request)
            await FUNCTIONS[request.function](cpu, request.arguments)
            if request.wait and not acknowledged:
                await AckIpi(request.sender, request.number)

    return flush_smp_call_function_queue


def cpus_of(mask: int) -> tuple[int, ...]:
    """CPU numbers of a mask, ascending."""
    return tuple(number for number in range(mask.bit_length()) if mask >> number & 1)


async def smp_call_function(cpu: PerCpu, function: IpiFunction, info: tuple[int, ...] = ()) -> None:
    """Run `function` on every other CPU, and wait for all of them."""
    others = cpus_of(cpu.parameters.all_cpus & ~cpu.bit & ~cpu.parameters.beside)
    if others:
        await WaitAcks(await SendIpi(others, function.__name__, info, True))


async def on_each_cpu_cond_mask(
    cpu: PerCpu,
    function: IpiFunction,
    info: tuple[int, ...],
    mask: int,
    skip_lazy: bool,
    condition: Condition | None = None,
) -> None:
    """Run `function` on every CPU of `mask`, this one included, and wait for all of them.

    With `skip_lazy`, CPUs in lazy TLB mode are left out (arch/x86/mm/tlb.c: tlb_is_not_lazy), or those for
    which a `condition` does not hold, if there is one. Must be called with interrupts on: a CPU that waits
    must be able to acknowledge others.
    """
    others = cpus_of(mask & ~cpu.bit)
    if skip_lazy and condition is not None:
        others = tuple([other for other in others if await condition(cpu, other, info)])
    elif skip_lazy and others:
        lazy = await Series(tuple(Load(is_lazy_word(other)) for other in others))
        others = tuple(other for other, flag in zip(others, lazy, strict=True) if not flag)
    request = await SendIpi(others, function.__name__, info, True) if others else -1
    if mask & cpu.bit and not (skip_lazy and cpu.tlbstate.is_lazy):
        await LocalIrqDisable()
        await function(cpu, info)
        await LocalIrqEnable()
    if others:
        await WaitAcks(request)
    if skip_lazy:
        # Those left out were seen lazy: what the caller does next comes after that look. Only x86 leaves lazy
        # CPUs out, where loads keep their order and this is no instruction.
        await SmpRmb()
