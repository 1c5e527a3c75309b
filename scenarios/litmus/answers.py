"""What litmus tests expect, and the counters that prove that a run got to the point of its test."""

from __future__ import annotations

from emulator.machine.litmus import Expectation

POSTINGS = ("migrc:v3", "migrc:rfc2", "migrc:v9")

REUSED = "litmus_frame_reused"
STALE = "litmus_old_translation"
STAYED = "litmus_not_moved"
DEFERRED = "migrc_deferred"
SKIPPED = "migrc_skipped"
FLUSHES = "migrc_flushes"
WRITE_FAULTS = "migrc_write_faults"
RECEIVED = "nr_tlb_remote_flush_received"
PROMOTED = "numa_pages_migrated"
READ_AGAIN = "pgmajfault"
# Rules.
FREED_TABLE = "walk of a freed page table"
MADE_WRITABLE = "grace period: destination made writable"
FRAME_REUSED = "grace period: frame reused"
FAILED = "allocation failed"


def never(policy: str, *reached: str) -> Expectation:
    """Nothing may break under this policy on any architecture; the counters show that it could have."""
    return Expectation(policy, "Never", "Never", "Never", reached)


def sometimes(policy: str, *rules: str) -> Expectation:
    """One of these rules (any if none is named) breaks in some interleaving on every architecture."""
    return Expectation(policy, "Sometimes", "Sometimes", "Sometimes", (), rules)


def postings_never(*reached: str) -> tuple[Expectation, ...]:
    """As `never`, under each posting."""
    return tuple(never(policy, *reached) for policy in POSTINGS)


def postings_sometimes(*rules: str) -> tuple[Expectation, ...]:
    """As `sometimes`, under each posting."""
    return tuple(sometimes(policy, *rules) for policy in POSTINGS)
