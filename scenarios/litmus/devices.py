"""Those who translate beside the CPUs and hold no reference: devices, guests, a GPU. Are they told in time?

CPU 1, or the last one, is in the place of the device. It runs no kernel and is in no mm_cpumask; the commands
that empty its cache come to it as calls do.
"""

from __future__ import annotations

from emulator.hardware.operations import FilemapRemove
from emulator.hardware.pte import ACCESSED, DIRTY, PRESENT, RW, mk_pte, spte_word
from emulator.kernel.i915_gem import i915_gem_object_put_pages
from emulator.kernel.khugepaged import collapse_pte_mapped_thp
from emulator.kernel.kvm_mmu import kvm_tdp_mmu_zap_gfn_range
from emulator.kernel.mmap import do_munmap
from emulator.kernel.mremap import mremap_to
from emulator.kernel.percpu import PerCpu
from emulator.kernel.secondary import device_read, guest_read, read_if_translated
from emulator.machine.litmus import FAST, MM, Litmus, Setup
from emulator.memory.folios import Folio
from scenarios.litmus.answers import DEFERRED, REUSED, never, postings_never, sometimes
from scenarios.litmus.starts import FILE, PAGE, VERSION, pages
from scenarios.litmus.steps import bystander, call, in_order, moves_and_reuses, reuse

DEVICE = "grace period: a device still translates"
FREE = "access to a free frame"
FOREIGN = "read of a frame that is not the page's"
TRANSLATED = "litmus_translated"
NEW = PAGE + 0x200
ENTRY = PRESENT | ACCESSED | RW | DIRTY
A_DEVICE = (("devices", ((1, MM),)),)
A_GUEST = ("guests", ((1, MM, PAGE, 1),))

_unmaps_and_reuses = in_order(call(do_munmap, MM, PAGE, PAGE + 1), call(reuse, FAST))


async def _device(cpu: PerCpu) -> None:
    if await device_read(cpu, MM, PAGE) >= 0:
        cpu.count(TRANSLATED)
    await read_if_translated(cpu, MM, PAGE)


# CPU 0                             a device
#                                   read page: walks the CPUs' table
# munmap: clear the entry; flush,
# and a command to the device
#                                   drop it
# free the frame, reuse
#                                   read page: nothing there
UNMAPPED = Litmus(
    name="device-unmapped",
    question="munmap takes a page away that a device has cached: does the device still get there?",
    programs=(_unmaps_and_reuses, _device),
    setup=pages(PAGE, cached=()),
    expected=(
        never("immediate", TRANSLATED, REUSED),
        sometimes("mistake:device-untold", DEVICE, FREE, FOREIGN),
    ),
    drain=False,
    frugal=False,
    fast=1,
    settings=A_DEVICE,
)

# CPU 0                             CPU 1, and a device, have page -> frame 1 cached
# demote: entry = migration entry;
# a command to the device, at once
#                                   the device drops it
# the flush of CPU 1 is put off
# free frame 1, reuse
MIGRATED = Litmus(
    name="device-migrated",
    question="A page moves, and the flush of the CPUs is put off: does a device still get to its old frame?",
    programs=(moves_and_reuses, bystander, _device),
    setup=pages(PAGE, cached=(1, 2)),
    expected=(
        never("immediate", TRANSLATED, REUSED),
        *postings_never(DEFERRED, TRANSLATED, REUSED),
        sometimes("mistake:device-untold", DEVICE, FREE, FOREIGN),
    ),
    drain=False,
    frugal=False,
    fast=1,
    slow=2,
    settings=(("devices", ((2, MM),)),),
)


def _guest_of_a_file(setup: Setup) -> None:
    """Page 0 of a file, which a guest has."""
    setup.area(PAGE, 1, file=FILE, shared=True)
    setup.in_page_cache(setup.page(PAGE, version=VERSION, exclusive=False), FILE, 0)
    setup.memory.folios.files[FILE, 0] = VERSION
    _guest_has(setup, 1, 1)


def _guest_has(setup: Setup, vcpu: int, pfn: int) -> None:
    """KVM's first table has the page, and the virtual CPU too."""
    setup.word(spte_word(MM, 0, PAGE), mk_pte(pfn, ENTRY))
    setup.cached.append((vcpu, PAGE, mk_pte(pfn, ENTRY)))


async def _collapses(cpu: PerCpu) -> None:
    await collapse_pte_mapped_thp(cpu, MM, PAGE & -(1 << 9))
    if await FilemapRemove(FILE, 0, 1, 1):
        await reuse(cpu, FAST)


async def _guest(cpu: PerCpu) -> None:
    await guest_read(cpu, MM, PAGE)
    cpu.count(TRANSLATED)
    await read_if_translated(cpu, MM, PAGE)


async def _guest_that_has_it(cpu: PerCpu) -> None:
    await read_if_translated(cpu, MM, PAGE)


# CPU 0                             a guest has the page
# collapse: tell KVM: zap, flush
#                                   flush
# clear the entry, free the page
#                                   read: fault, what the file has now
COLLAPSED = Litmus(
    name="guest-collapsed",
    question="collapse takes a file's small pages away that a guest has: does the guest still read them?",
    programs=(_collapses, _guest),
    setup=_guest_of_a_file,
    expected=(
        never("immediate", TRANSLATED, REUSED),
        sometimes("mistake:collapse-untold", FREE, FOREIGN),
    ),
    drain=False,
    frugal=False,
    settings=(A_GUEST,),
)


def _guest_of_a_page(setup: Setup) -> None:
    pages(PAGE, cached=())(setup)
    _guest_has(setup, 1, 1)


# CPU 0                             a guest has the page
# mremap: tell KVM of the old address
#                                   flush
# munmap at the new address: the
# guest has no page there
# free the frame, reuse
#                                   read: not from there
MOVED = Litmus(
    name="guest-mremapped",
    question="mremap moves a page that a guest has, and it is freed at its new address: who tells the guest?",
    programs=(
        in_order(call(mremap_to, MM, PAGE, NEW, 1), call(do_munmap, MM, NEW, NEW + 1), call(reuse, FAST)),
        _guest_that_has_it,
    ),
    setup=_guest_of_a_page,
    expected=(never("immediate", REUSED), sometimes("mistake:mremap-untold", FREE, FOREIGN)),
    drain=False,
    frugal=False,
    settings=(A_GUEST,),
)


def _guest_with_two_roots(setup: Setup) -> None:
    """One of them has the page."""
    pages(PAGE, cached=())(setup)
    _guest_has(setup, 2, 1)


# CPU 0 zaps all of the guest's     CPU 1 unmaps the page         a guest has it cached
# root 0: zap; a flush is owed
# flush before it gives way
#                                                                 flush
#                                   tell KVM: no entry, no flush
#                                   free the frame, reuse
#                                                                 read: not from there
YIELDED = Litmus(
    name="guest-zapped-root-by-root",
    question="KVM gives its lock up between two roots: does who takes it rely on a flush that is still owed?",
    programs=(call(kvm_tdp_mmu_zap_gfn_range, MM, PAGE, PAGE + 1), _unmaps_and_reuses, _guest_that_has_it),
    setup=_guest_with_two_roots,
    expected=(
        never("immediate", REUSED),
        sometimes("mistake:kvm-yields-without-flush", FREE, FOREIGN),
    ),
    drain=False,
    frugal=False,
    settings=(("guests", ((2, MM, PAGE, 1),)), ("guest_roots", 2)),
)


def _buffer(setup: Setup) -> None:
    """A page that the driver holds and the GPU has; no process has it mapped."""
    pfn = setup.memory.folios.zones[FAST].rmqueue(0)
    assert pfn == 1
    setup.memory.folios.folios[pfn] = Folio(pfn, 0, FAST)
    _guest_has(setup, 1, pfn)


# CPU 0                             the GPU
# unbind the buffer: clear its entry
#                                   read through its TLB
# flush the GPU's TLBs
#                                   flush
# give the page back, reuse
BUFFER = Litmus(
    name="gpu-buffer",
    question="A buffer's pages go back: does the GPU still reach them through its TLB?",
    programs=(in_order(call(i915_gem_object_put_pages, MM, PAGE, 1), call(reuse, FAST)), _guest_that_has_it),
    setup=_buffer,
    expected=(never("immediate", REUSED), sometimes("mistake:buffers-without-flush", FREE)),
    drain=False,
    frugal=False,
    settings=(A_GUEST,),
)
