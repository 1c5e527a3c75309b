"""Nomad's transactions: a page is copied while it is used, and what it was is kept as its shadow."""

from __future__ import annotations

from emulator.hardware.operations import FolioGet, FolioIsolateLru, FolioPutbackLru, GetPte
from emulator.hardware.pte import pte_pfn
from emulator.kernel.mprotect import PROT_READ, READ_WRITE
from emulator.kernel.percpu import PerCpu
from emulator.kernel.user import user_write
from emulator.kernel.vmscan import demote_folio_list
from emulator.machine.litmus import FAST, MM, SLOW, Litmus
from emulator.policies.nomad import ABORTED, COMMITTED, RELEASED, REMAPPED, Nomad
from scenarios.litmus.answers import LOST_WRITE, MADE_WRITABLE, OVERWRITTEN, WRONG_VERSION, never, sometimes
from scenarios.litmus.starts import PAGE, pages
from scenarios.litmus.steps import call, finds, in_order, keeps, read_if_cached
from scenarios.litmus.syscalls import mprotect

CONTENT = "mapped without the page's content"


async def promote(cpu: PerCpu) -> None:
    """kpromote, for the page where it is, if it is in the slow tier."""
    pfn = pte_pfn(await GetPte(MM, PAGE))
    if cpu.parameters.nid(pfn) != FAST:
        await FolioGet(pfn)
        assert isinstance(cpu.policy, Nomad)
        await cpu.policy.promote(cpu, pfn)


async def demote(cpu: PerCpu) -> None:
    """What kswapd does with the page, if it is in the fast tier."""
    pfn = pte_pfn(await GetPte(MM, PAGE))
    if cpu.parameters.nid(pfn) == FAST and await FolioIsolateLru(pfn):
        for stayed in await demote_folio_list(cpu, [pfn]):
            await FolioPutbackLru(stayed, False)


# CPU 0                             CPU 1 has the page cached writable, dirty
# clear the dirty bit, IPI
#                                   handle the IPI
# copy
#                                   write: a walk, which sets the dirty bit
# clear the entry: dirty, abort
#                                   read that again
WRITTEN = Litmus(
    name="nomad-written-while-copied",
    question="A page is written while Nomad copies it, mapped as it is: is the write still there after that?",
    programs=(call(promote), call(keeps)),
    setup=pages(PAGE, node=SLOW, written=True, cached=(1,)),
    expected=(
        never("nomad", COMMITTED, ABORTED),
        sometimes("mistake:nomad-copies-unflushed", CONTENT, LOST_WRITE, WRONG_VERSION),
        sometimes("mistake:nomad-commits-written", CONTENT, LOST_WRITE, WRONG_VERSION),
    ),
    only=Nomad,
    fast=2,
    slow=2,
)

# CPU 0                             CPU 1 has the page cached
# copy, clear the entry, IPI
#                                   handle the IPI
# map the copy
# write to it
#                                   read: the copy
FLUSHED = Litmus(
    name="nomad-remap-flushed",
    question="Nomad maps the copy of a page, which is written: does another CPU read the old one?",
    programs=(in_order(call(promote), call(user_write, PAGE, 12)), call(read_if_cached)),
    setup=pages(PAGE, node=SLOW, cached=(1,)),
    expected=(
        never("nomad", COMMITTED, RELEASED),
        sometimes("mistake:nomad-remaps-unflushed", MADE_WRITABLE, OVERWRITTEN),
    ),
    only=Nomad,
    fast=2,
    slow=2,
)

# CPU 0                             CPU 1
# promote: the shadow is linked,
# the copy mapped read-only
#                                   write fault: drop the shadow, write
# demote: to the shadow, if it is
# there
#                                   read that again
SHADOWED = Litmus(
    name="nomad-shadow-written",
    question="A page with a shadow is written, and demoted: is it mapped at the shadow, without the write?",
    programs=(in_order(call(promote), call(demote)), call(keeps)),
    setup=pages(PAGE, node=SLOW, cached=()),
    expected=(
        never("nomad", COMMITTED, RELEASED, REMAPPED),
        sometimes("mistake:nomad-keeps-shadow", CONTENT, LOST_WRITE, WRONG_VERSION),
        sometimes("mistake:nomad-links-late", CONTENT, LOST_WRITE, WRONG_VERSION),
        sometimes("mistake:nomad-takes-shadow-first", CONTENT, LOST_WRITE, WRONG_VERSION),
    ),
    only=Nomad,
    fast=2,
    slow=2,
)

# CPU 0                             CPU 1 has the page cached
# promote: a shadow
# mprotect, and back: writable,
# without a fault
# write, demote, read
PROTECTED = Litmus(
    name="nomad-shadow-mprotect",
    question="mprotect makes a page with a shadow writable without a fault: does the shadow go all the same?",
    programs=(
        in_order(
            call(promote),
            call(mprotect, PAGE, PROT_READ),
            call(mprotect, PAGE, READ_WRITE),
            call(user_write, PAGE, 12),
            call(demote),
            call(finds, 12),
        ),
        call(read_if_cached),
    ),
    setup=pages(PAGE, node=SLOW, cached=(1,)),
    expected=(
        never("nomad", COMMITTED, RELEASED),
        sometimes("mistake:nomad-forgets-mprotect", CONTENT, LOST_WRITE, WRONG_VERSION),
    ),
    only=Nomad,
    fast=2,
    slow=2,
)
