"""What the programs of litmus tests do: move a page, use a frame again, read through old translations.

A program is a function of its CPU. `call(user_write, PAGE, 11)` makes one of any kernel function, `in_order`
makes one of several and of operations. Nothing here waits for another CPU.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

from emulator.hardware.operations import (
    TABLE,
    DownRead,
    FolioIsolateLru,
    FolioPut,
    FolioPutbackLru,
    FolioZero,
    GetPte,
    Load,
    LocalIrqDisable,
    LocalIrqEnable,
    Operation,
    ReadFrame,
    SmpMb,
    SmpRmb,
    SmpWmb,
    Store,
    Translate,
    UpRead,
    WaitFor,
    Walk,
    WriteFrame,
)
from emulator.hardware.pte import frame_of, pte_pfn
from emulator.kernel.gup import (
    kernel_read,
    kernel_write,
    pin_user_pages_fast,
    unpin_user_page,
    unpin_user_pages_dirty_lock,
)
from emulator.kernel.instead import kernel_function
from emulator.kernel.memory import handle_mm_fault
from emulator.kernel.migrate import migrate_pages
from emulator.kernel.mprotect import change_prot_numa, mmap_lock
from emulator.kernel.page_alloc import alloc_pages
from emulator.kernel.percpu import PerCpu
from emulator.kernel.policy import MR_NUMA_MISPLACED
from emulator.kernel.tlb import flush_tlb_local
from emulator.kernel.user import user_read, user_write, walk
from emulator.machine.litmus import FAST, MM, SLOW, Body, Forbidden
from scenarios.litmus.answers import (
    AFTER_RETURN,
    NO_PERMISSION,
    REUSED,
    STALE,
    STAYED,
    THROUGH_CACHED,
    TRACKING,
    WRONG_VERSION,
)
from scenarios.litmus.starts import PAGE

MOVED = "litmus.moved"  # a word that says so
HAS_RETURNED = "litmus.returned"
WRITTEN = 12  # a version that no page has at the start
Parameters = ParamSpec("Parameters")


def call(
    function: Callable[Concatenate[PerCpu, Parameters], Awaitable[object]],
    *arguments: Parameters.args,
    **options: Parameters.kwargs,
) -> Body:
    """A program that calls one function of the kernel, or one of those below; its answer is dropped."""

    if not callable(function):
        raise TypeError(f"call({function!r:.60}, ...): not a function")
    try:
        inspect.signature(function).bind(None, *arguments, **options)
    except TypeError as problem:
        takes = f"{_name(function)}{inspect.signature(function)}".replace("'", "")
        raise TypeError(f"call({_name(function)}, ...): {problem}; it is {takes}") from None

    async def body(cpu: PerCpu) -> None:
        answer = kernel_function(function)(cpu, *arguments, **options)
        if not isinstance(answer, Awaitable):
            raise TypeError(f"call({_name(function)}, ...): it answers {answer!r:.60}, nothing to await")
        await answer

    return body


def _name(thing: object) -> str:
    return getattr(thing, "__name__", repr(thing))


def in_order(*steps: Body | Operation) -> Body:
    """A program of programs and operations, one after the other."""
    for number, step in enumerate(steps, 1):
        if not callable(step) and type(step) not in TABLE:
            raise TypeError(f"in_order: step {number}, {_name(step):.60}, is no program and no operation")

    async def body(cpu: PerCpu) -> None:
        for step in steps:
            await (step(cpu) if callable(step) else step)

    return body


async def move(cpu: PerCpu, pfn: int, target: int = SLOW) -> bool:
    """Migrate one folio for NUMA balancing, which the postings defer for; whether it went.

    ValueError if it is there already: then nothing would happen.
    """
    if cpu.parameters.nid(pfn) == target:
        raise ValueError(f"move of frame {pfn} to node {target}, where it is: nothing would happen")
    return await _move(cpu, pfn, target)


async def _move(cpu: PerCpu, pfn: int, target: int) -> bool:
    if not await FolioIsolateLru(pfn):
        return False
    moved, failed = await migrate_pages(cpu, [pfn], target, MR_NUMA_MISPLACED)
    for stayed in failed:
        cpu.count(STAYED)
        await FolioPutbackLru(stayed, False)
    return bool(moved)


async def move_again(cpu: PerCpu, vpn: int, target: int) -> bool:
    """Migrate the folio that page `vpn` has by now, wherever that is."""
    return await _move(cpu, pte_pfn(await GetPte(MM, vpn)), target)


async def reuse(cpu: PerCpu, node: int, order: int = 0) -> None:
    """Take 2**order frames of the node for something else, clear them, and give them back."""
    pfn = await alloc_pages(cpu, order, (node,))
    cpu.count(REUSED)
    await FolioZero(pfn)
    await FolioPut(pfn)


async def read(cpu: PerCpu, vpn: int = PAGE) -> int:
    """A user's read; counts that the CPU still has a translation which the page table does not have."""
    cached = await Translate(vpn, False)
    if cached:
        entry = await GetPte(MM, vpn)
        if pte_pfn(entry) != pte_pfn(cached):
            cpu.count(STALE)
    return await user_read(cpu, vpn)


async def read_if_cached(cpu: PerCpu, vpn: int = PAGE) -> None:
    """A user's read as long as the TLB has the page; a fault while others unmap it is another question."""
    mm = cpu.tlbstate.loaded_mm
    cached = await Translate(vpn, False)
    if not cached:
        return
    if pte_pfn(await GetPte(mm, vpn)) != pte_pfn(cached):
        cpu.count(STALE)
    cached = await Translate(vpn, False)
    if cached:
        await ReadFrame(mm, vpn, frame_of(cached, vpn, cpu.parameters.hpage_order))


async def moves_and_reuses(cpu: PerCpu) -> None:
    """A program: demote frame 1, then need memory of its node."""
    if await move(cpu, 1):
        await reuse(cpu, FAST)


async def bystander(cpu: PerCpu) -> None:
    """A program: runs its address space, and nothing else."""


async def flush_for_own_reasons(cpu: PerCpu) -> None:
    """A whole local flush, as any large munmap of this CPU's own would need."""
    await LocalIrqDisable()
    await flush_tlb_local(cpu)
    await LocalIrqEnable()


async def write(cpu: PerCpu, vpn: int = PAGE, value: int = WRITTEN) -> None:
    """A user's write; counts one that needed no walk: through what the CPU had cached."""
    if await Translate(vpn, True):
        cpu.count(THROUGH_CACHED)
    await user_write(cpu, vpn, value)


async def write_if_cached(cpu: PerCpu, vpn: int = PAGE, value: int = WRITTEN) -> bool:
    """A user's write as long as the TLB lets it through; whether it did. A fault is another question."""
    cached = await Translate(vpn, True)
    if cached:
        cpu.count(THROUGH_CACHED)
        frame = frame_of(cached, vpn, cpu.parameters.hpage_order)
        await WriteFrame(cpu.tlbstate.loaded_mm, vpn, frame, value)
    return cached != 0


async def keeps(cpu: PerCpu, vpn: int = PAGE, value: int = WRITTEN) -> None:
    """Write, and read that again. Nobody else writes to the page."""
    await write(cpu, vpn, value)
    await finds(cpu, value, vpn=vpn)


async def keeps_if_cached(cpu: PerCpu, vpn: int = PAGE, value: int = WRITTEN) -> None:
    """As `keeps`, as long as the TLB lets the write through."""
    if await write_if_cached(cpu, vpn, value):
        await finds(cpu, value, vpn=vpn)


async def writes_another_word(cpu: PerCpu, vpn: int = PAGE) -> None:
    """Its fault alone: a version stands for all of a page, and this write is to another part of it."""
    if not await Translate(vpn, True) and not await Walk(MM, vpn, True):
        await handle_mm_fault(cpu, MM, vpn, True)


async def finds(cpu: PerCpu, *versions: int, vpn: int = PAGE) -> None:
    """A user's read, which must find one of these versions."""
    _one_of(await user_read(cpu, vpn), versions, vpn)


def _one_of(version: int, versions: tuple[int, ...], vpn: int) -> None:
    if version not in versions:
        wanted = " or ".join(map(str, versions))
        raise Forbidden(WRONG_VERSION, f"page {vpn:#x} has version {version}, not {wanted}")


def _returned(of: str) -> str:
    return f"{HAS_RETURNED}.{of}" if of else HAS_RETURNED


async def returns(cpu: PerCpu, of: str = "") -> None:
    """Say that the call before this one has returned; for `once_returned` on another CPU.

    Where a test has several such calls, `of` tells them apart: any word.
    """
    await SmpWmb()
    await Store(_returned(of), 1)


def once_returned(*steps: Body | Operation, of: str = "") -> Body:
    """A program of these steps, carried out only where another CPU's `returns` (`of` the same) was seen."""
    then = in_order(*steps)

    async def body(cpu: PerCpu) -> None:
        if await Load(_returned(of)):
            await SmpRmb()
            cpu.count(AFTER_RETURN)
            await then(cpu)

    return body


def after_return(*steps: Body | Operation, of: str = "") -> Body:
    """As `once_returned`, but waiting for it: a child after fork, for example."""
    return in_order(WaitFor(_returned(of), 1), SmpMb(), *steps)


def with_mmap_lock(*steps: Body | Operation) -> Body:
    """A program of these steps, the mmap_lock held for reading, as ioctls and drivers do (mmap_read_lock)."""

    async def body(cpu: PerCpu) -> None:
        lock = mmap_lock(cpu.tlbstate.loaded_mm)
        await DownRead(lock)
        await in_order(*steps)(cpu)
        await UpRead(lock)

    return body


async def direct_read(cpu: PerCpu, vpn: int = PAGE) -> int:
    """Direct I/O out of a page: pinned for reading, read by its frame, unpinned; the version found there."""
    mm = cpu.tlbstate.loaded_mm
    pfn = await pin_user_pages_fast(cpu, mm, vpn, False)
    version = await kernel_read(mm, vpn, pfn)
    await unpin_user_page(pfn)
    return version


async def direct_write(cpu: PerCpu, vpn: int = PAGE, value: int = WRITTEN) -> None:
    """Direct I/O into a page: pinned for writing, written by its frame, unpinned."""
    mm = cpu.tlbstate.loaded_mm
    pfn = await pin_user_pages_fast(cpu, mm, vpn, True)
    await kernel_write(cpu, mm, vpn, pfn, value)
    await unpin_user_pages_dirty_lock(pfn)


async def direct_finds(cpu: PerCpu, *versions: int, vpn: int = PAGE) -> None:
    """As `finds`, by direct I/O."""
    _one_of(await direct_read(cpu, vpn), versions, vpn)


async def scan_and_fault(cpu: PerCpu, vpn: int = PAGE) -> int:
    """A NUMA hint and the fault that takes it: the scanner, then a read of the page; the version read."""
    await change_prot_numa(cpu, cpu.tlbstate.loaded_mm, vpn, vpn + 1)
    return await user_read(cpu, vpn)


async def cannot_read(cpu: PerCpu, vpn: int = PAGE) -> None:
    """The CPU must have no translation of the page any more."""
    cached = await Translate(vpn, False)
    if cached:
        raise Forbidden(NO_PERMISSION, f"frame {pte_pfn(cached)} may be read at page {vpn:#x}")


async def cannot_write(cpu: PerCpu, vpn: int = PAGE) -> None:
    """The CPU must not be able to write to the page without a fault."""
    cached = await Translate(vpn, True)
    if cached:
        raise Forbidden(NO_PERMISSION, f"frame {pte_pfn(cached)} may be written at page {vpn:#x}")


async def is_noticed(cpu: PerCpu, vpn: int = PAGE) -> None:
    """A write to the page must fault, whatever is cached or mapped: so who tracks writes learns of it."""
    entry = await Translate(vpn, True) or await walk(cpu, cpu.tlbstate.loaded_mm, vpn, True)
    if entry:
        raise Forbidden(TRACKING, f"frame {pte_pfn(entry)} may be written at page {vpn:#x} without a fault")


mover = call(move, 1)  # demotes frame 1
reader = call(read)  # reads the page
scanner = call(change_prot_numa, MM, PAGE, PAGE + 1)  # makes the page's entry a NUMA hint
