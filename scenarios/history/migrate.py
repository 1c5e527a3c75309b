"""Bugs of migration."""

from __future__ import annotations

from scenarios.history.bug import Bug
from scenarios.litmus.locks import MIGRATE_VMA

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
