"""Bugs of migration."""

from __future__ import annotations

from emulator.machine.litmus import Litmus
from scenarios.history.bug import Bug
from scenarios.litmus.answers import DROPPED, never, sometimes
from scenarios.litmus.dirty import DIRTY_CACHED
from scenarios.litmus.locks import MIGRATE_VMA
from scenarios.litmus.pageout import RECLAIMED
from scenarios.litmus.pageout import WRITTEN as WRITTEN_OUT
from scenarios.litmus.starts import file_page
from scenarios.litmus.steps import bystander, call, in_order, write
from scenarios.litmus.syscalls import migrate_range, reclaim

MIGRATE_VMA_COLLECT = Bug(
    name="migrate-vma-collect",
    title="migrate_vma flushes after it has dropped the page-table lock",
    kinds=("PT",),
    story="CPU 0 (migrate_vma_collect_pmd) replaces an entry by a migration entry, drops the page-table "
    "lock and flushes only then. CPU 1 (MADV_DONTNEED) takes the lock in between, meets a "
    "migration entry, flushes nothing and returns; its thread goes on reading the page that it has"
    " given up.",
    affected="v4.14 to v6.0",
    source="the commit, repo.jachan.dev/linux.git/commitdiff/60bae73708963de4a17231077285bd9ff2f41c44",
    fix="60bae7370896",
    test=MIGRATE_VMA,
    before="mistake:migrate-vma-flush-after-unlock",
)

FIRST_SLOW_FRAME = 5

MIGRATE_VMA_DIRTY = Bug(
    name="migrate-vma-dirty",
    title="migrate_vma loses the dirty bit of the entry that it takes out",
    kinds=("WO",),
    story="A page of a file has been written; only its entry says so. migrate_vma_collect_pmd takes the "
    "entry out, and with it the dirty bit. The page is clean at its new place, reclaim drops it "
    "without writing it out, and the next read finds what was in the file before.",
    affected="v4.14 to v6.0",
    source="the commit, fd35ca3d12cc",
    fix="fd35ca3d12cc",
    test=Litmus(
        name="migrate-vma-dirty",
        question="A written page of a file is moved by migrate_vma and reclaimed: is the write still there?",
        programs=(
            in_order(call(write), migrate_range, call(reclaim, FIRST_SLOW_FRAME)),
            bystander,
        ),
        setup=file_page(cached=(), stored=True),
        expected=(
            never("immediate", RECLAIMED, WRITTEN_OUT),
            sometimes("mistake:before-fd35ca3d12cc", DROPPED),
        ),
        frugal=False,
        settings=(("migration_entry_ad", False),),
    ),
    before="mistake:before-fd35ca3d12cc",
)

HINTED_BESIDE_SCANNER = Bug(
    name="promoted-beside-scanner",
    title="a hint fault moves a page that CPUs still write to",
    kinds=("PT",),
    story="CPU 2 has the page cached writable. CPU 0 (the NUMA scanner) makes the entry PROT_NONE and "
    "has not flushed. CPU 1 takes the hint fault, finds an entry that is in no TLB, needs no flush"
    " therefore, copies the page and maps the copy. What CPU 2 writes in between is gone.",
    affected="v3.8 to v3.12",
    source="the commit, 20841405940e7be0617612d521e206e4b6b325db",
    fix="20841405940e",
    test=DIRTY_CACHED,
    before="mistake:before-20841405940e",
)
