"""Bugs of pages that the kernel holds by references while processes share, copy and write them."""

from __future__ import annotations

from emulator.kernel.percpu import PerCpu
from emulator.machine.litmus import MM, Forbidden, Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import AFTER_RETURN, LOST_WRITE, OVERWRITTEN, WRONG_VERSION, never, sometimes
from scenarios.litmus.fork import CHILD
from scenarios.litmus.starts import PAGE, VERSION, pages, runs, starts
from scenarios.litmus.steps import (
    WRITTEN,
    after_return,
    bystander,
    call,
    finds,
    once_returned,
    returns,
    write,
)
from scenarios.litmus.syscalls import (
    MADV_DONTNEED,
    clear_soft_dirty,
    fork,
    get_page,
    kernel_read,
    kernel_write,
    madvise,
    pin,
    put,
    unpin,
)

OWN = 11  # what the process itself writes
PINNED = "litmus_pinned"


async def _writes_then_device(cpu: PerCpu, pfn: int) -> None:
    """The process writes, which copies what it shares; then a device writes to what it was given."""
    await write(cpu, PAGE, OWN)
    await kernel_write(cpu, MM, PAGE, pfn, WRITTEN)
    await unpin(cpu, pfn, dirty=True)
    await finds(cpu, WRITTEN)
    cpu.count(PINNED)


async def _forks_what_it_has_pinned(cpu: PerCpu) -> None:
    pfn = await pin(cpu, PAGE, write=True)
    await fork(cpu, CHILD)
    await returns(cpu)
    await _writes_then_device(cpu, pfn)


PINNED_FORKED = Bug(
    name="pinned-page-forked",
    title="after fork a device goes on writing to a page that its process does not have any more",
    kinds=("PT",),
    story="CPU 0 has pinned a page for a device, which writes there at any time (RDMA). It forks: the "
    "page is read-only and shared. The first write of the process itself gets a copy; the device "
    "goes on writing to the old page, which is the child's alone by now. Since then a page that "
    "may be pinned is copied for the child at once, and the parent keeps it.",
    affected="before v5.9",
    source="the commit, 70e806e4e645; Peter Xu's series for hugetlb, February 2021, which tells of it",
    fix="70e806e4e645",
    test=Litmus(
        name="pinned-forked",
        question="A process forks while a device writes to its page: whose is the page after that?",
        programs=(_forks_what_it_has_pinned, after_return(call(finds, VERSION))),
        setup=starts(pages(PAGE, cached=(0,), written=True, area=1), runs(1, CHILD)),
        expected=(
            never("immediate", PINNED, "fork_copied"),
            sometimes("mistake:before-70e806e4e645", LOST_WRITE, WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-70e806e4e645",
)


async def _pins_meanwhile(cpu: PerCpu) -> None:
    await _writes_then_device(cpu, await pin(cpu, PAGE, write=True))


FORK_BESIDE_PIN = Bug(
    name="fork-beside-pin",
    title="fork shares a page that is pinned without locks at that moment",
    kinds=("PT", "MO"),
    story="CPU 0 (fork) looks at a page: nobody has pinned it. CPU 1 (pin_user_pages_fast) has read the"
    " entry, which is still writable, pins the page, and finds the entry as it was. Now CPU 0 "
    "takes the write permission, and the page is shared: the next write of CPU 1 copies it away "
    "from the pin. Since then a count says that a fork is under way, which who pins reads before "
    "and after.",
    affected="v5.9 and v5.10",
    source="the commit, 57efa1fe5957694fa541c9062de0a127f0b9acb0",
    fix="57efa1fe5957",
    test=Litmus(
        name="fork-beside-pin",
        question="A thread pins a page while another one forks: whose is the page after that?",
        programs=(call(fork, CHILD), _pins_meanwhile),
        setup=pages(PAGE, cached=(), written=True, area=1),
        expected=(
            never("immediate", PINNED, "fork_copied"),
            sometimes("mistake:before-57efa1fe5957", LOST_WRITE, WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-57efa1fe5957",
)


def _shared(setup: Setup) -> None:
    """Parent (mm 1, CPU 0) and child (CPU 1) have the page since a fork."""
    pages(PAGE, cached=(), exclusive=False, area=1)(setup)
    setup.area(PAGE, 1, mm=CHILD)
    setup.map_again(PAGE, 1, mm=CHILD)
    setup.load(1, CHILD)


async def _sees_the_pin(cpu: PerCpu, mm: int, pfn: int, version: int) -> None:
    found = await kernel_read(mm, PAGE, pfn)
    if found != version:
        raise Forbidden(WRONG_VERSION, f"the pinned page {PAGE:#x} has version {found}, not {version}")


async def _writes_what_a_device_reads(cpu: PerCpu) -> None:
    pfn = await pin(cpu, PAGE)
    await write(cpu, PAGE, OWN)
    await _sees_the_pin(cpu, MM, pfn, OWN)
    cpu.count(PINNED)
    await unpin(cpu, pfn)


READ_PIN_SHARED = Bug(
    name="read-pin-of-a-shared-page",
    title="a device that reads goes on with a page that its process has copied away from",
    kinds=("PT",),
    story="Parent and child have a page in common. CPU 0 (the parent) pins it for a device that reads "
    "it. It writes to the page, which gives it a copy; the device never sees what is written. "
    "Since then such a page is made the mapping's own before it is pinned, if need be by a copy "
    "(FAULT_FLAG_UNSHARE).",
    affected="before v5.19",
    source="the commit, a7f226604170",
    fix="a7f226604170",
    test=Litmus(
        name="read-pin-shared",
        question="A page that a child has too is pinned for reading: does the pin see what is written then?",
        programs=(_writes_what_a_device_reads, call(write, PAGE, WRITTEN)),
        setup=_shared,
        expected=(
            never("immediate", PINNED, "pgcow"),
            sometimes("mistake:before-a7f226604170", OVERWRITTEN, WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-a7f226604170",
)


async def _keeps_a_reference(cpu: PerCpu) -> None:
    pfn = await get_page(cpu, PAGE)
    await madvise(cpu, PAGE, MADV_DONTNEED)
    await returns(cpu)
    await _sees_the_pin(cpu, CHILD, pfn, VERSION)
    await put(cpu, pfn)


CHILD_READS_ON = Bug(
    name="child-reads-on",
    title="a child that has given a shared page up reads what its parent writes there",
    kinds=("PT",),
    story="CPU 1 (the child) puts a page that it shares with its parent into a pipe (vmsplice), which "
    "takes a reference, and unmaps it. CPU 0 (the parent) writes: the page has one mapping left, "
    "its own, so it is written in place. The child reads the pipe. Since then references count, "
    "not mappings.",
    affected="before v5.7.3, which copied for who reads; v5.9 does as told here",
    source="the CVE's record; the commit, 09854ba94c6a",
    fix="09854ba94c6a",
    cve="CVE-2020-29374",
    test=Litmus(
        name="child-reads-on",
        question="A child has a reference on a page and no mapping: does its parent write to that page?",
        programs=(once_returned(call(write, PAGE, OWN), call(finds, OWN)), _keeps_a_reference),
        setup=_shared,
        expected=(
            never("immediate", AFTER_RETURN, "pgcow"),
            sometimes("mistake:before-09854ba94c6a", WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-09854ba94c6a",
    left_out="17839856fd58, a first fix that copied for the reader, and was taken back.",
)


async def _tracks_what_it_has_pinned(cpu: PerCpu) -> None:
    pfn = await pin(cpu, PAGE, write=True)
    await clear_soft_dirty(cpu)
    await _writes_then_device(cpu, pfn)


PINNED_TRACKED = Bug(
    name="pinned-page-tracked",
    title="soft-dirty tracking parts a page from the device that writes to it",
    kinds=("PT",),
    story="CPU 0 has pinned a page for a device. It begins to track writes, so the entry becomes "
    "read-only. The next write of the process faults: the page has more references than this "
    "mapping's, so it is taken for a shared one and copied. The device goes on writing to the old"
    " page. Since then what is pinned stays writable, and counts as written.",
    affected="v5.9 and v5.10",
    source="the commit, 9348b73c2e1bfea74ccd4a44fb4ccc7276ab9623",
    fix="9348b73c2e1b",
    test=Litmus(
        name="pinned-tracked",
        question="Writes to a page are tracked while a device writes to it: whose is the page after that?",
        programs=(_tracks_what_it_has_pinned, bystander),
        setup=pages(PAGE, cached=(0,), written=True, area=1, exclusive=False),
        expected=(
            never("immediate", PINNED),
            sometimes("mistake:before-9348b73c2e1b", LOST_WRITE, WRONG_VERSION),
        ),
        frugal=False,
    ),
    before="mistake:before-9348b73c2e1b",
    left_out="hugetlb; and pages that are exclusive since v5.19 stay in place in any case.",
)
