"""Bugs of translation caches that are no CPU's TLB: guests, a GPU, an IOMMU. And one of a CPU's own."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus import devices, kernel_pages

COLLAPSE_UNTOLD = Bug(
    name="collapse-untold",
    title="collapse of a file's pages does not tell KVM",
    kinds=("XT",),
    story="CPU 0 (collapse of a file mapping) zaps the entries of small pages and frees these; it calls "
    "no MMU notifier. A guest goes on through KVM's tables and its own TLB, which hold no "
    "reference, in pages that are somebody else's.",
    affected="v4.8 to v6.0",
    source="the CVE's record",
    fix="f268f6cf875f",
    cve="CVE-2022-48991",
    test=devices.COLLAPSED,
    before="mistake:collapse-untold",
    left_out="the huge page that the file has by then: the next fault finds a small one",
)

KVM_YIELDS = Bug(
    name="kvm-yields-without-flush",
    title="KVM gives its lock up between two roots and forgets what it owes",
    kinds=("XT", "FL"),
    story="CPU 0 zaps a range in all of a guest's roots. In the first it has zapped an entry and owes a "
    "flush; in the second it gives mmu_lock up, and looks at what it owes for this one: nothing. "
    "CPU 1 (munmap, through the notifier) takes the lock, finds no entry, flushes nothing and frees"
    " the page. The virtual CPU has it cached.",
    affected="v5.10 to v5.11",
    source="the backport's mail, Paolo Bonzini for Sean Christopherson, 10 April 2021",
    fix="a835429cda91",
    test=devices.YIELDED,
    before="mistake:kvm-yields-without-flush",
)

BUFFERS = Bug(
    name="gpu-buffers-without-flush",
    title="i915 gives a buffer's pages back while the GPU's TLB has them",
    kinds=("XT", "MF"),
    story="CPU 0 unbinds a buffer from the GPU's tables and gives its pages back. The GPU's TLB is not "
    "flushed: a batch that still runs there reads and writes pages that are somebody else's.",
    affected="before v5.17",
    source="the CVE's record and the title of its fix",
    fix="7938d61591d3",
    cve="CVE-2022-0330",
    test=devices.BUFFER,
    before="mistake:buffers-without-flush",
)

IOREMAP = Bug(
    name="ioremap-without-purge",
    title="ioremap frees a table that walkers have cached",
    kinds=("PF", "MF"),
    story="CPU 0 maps a huge page of the kernel's where a table of small ones was, and frees the table. "
    "CPU 1's walker has the upper entry cached and goes through it.",
    affected="x86, v4.16 to v4.17 (and, without the freeing, before)",
    source="Toshi Kani's patch and its backports, 2018",
    fix="5e0fb5df2ee8",
    test=kernel_pages.IOREMAP,
    before="mistake:ioremap-without-purge",
)

KERNEL_TABLES = Bug(
    name="iommu-kernel-tables",
    title="An IOMMU is not told when a page table of the kernel's is freed",
    kinds=("XT", "PF"),
    story="With shared virtual addresses an IOMMU walks the CPUs' page tables, the kernel's half "
    "included, and caches upper entries of it although devices may not use them. CPU 0 frees a page"
    " table of the kernel's; the page is used again, and the IOMMU takes data for entries.",
    affected="x86 with SVA, v5.2 to v6.18",
    source="the CVE's record, with the description of the series",
    cve="CVE-2025-71089",
    test=kernel_pages.TABLE_OF_DEVICE,
    before="mistake:kernel-tables-untold",
    left_out="that x86 turned SVA off meanwhile; the test has the notification that came later",
)

INVLPG_MISS = Bug(
    name="invlpg-leaves-global",
    title="INVLPG leaves global entries where PCIDs are used",
    kinds=("HW",),
    story="On Alder Lake and others INVLPG does not drop a global entry while PCIDs are in use. CPU 0 "
    "purges an address of the kernel's by INVLPG on every CPU and uses it again; CPU 1 still has "
    "the old page.",
    affected="before v6.4, on CPUs with the erratum",
    source="the commit, ce0b15d11ad837fbacc5356941712218e38a0a83",
    fix="ce0b15d11ad8",
    test=kernel_pages.INVLPG_MISS,
    before="mistake:pcids-in-spite-of-invlpg",
)
