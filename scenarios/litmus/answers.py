"""What litmus tests expect, and the counters that prove that a run got to the point of its test."""

from __future__ import annotations

import sys
from pathlib import Path

from emulator.kernel.policy import Policy
from emulator.machine.litmus import Expectation

POSTINGS = ("migrc:v3", "migrc:rfc2", "migrc:v9")

LUF = ("luf:v10", "luf:v11", "luf:v12", "luf:v12-required")
LUF_12 = LUF[2:]

REUSED = "litmus_frame_reused"
STALE = "litmus_old_translation"
STAYED = "litmus_not_moved"
THROUGH_CACHED = "litmus_written_through_cached"
AFTER_RETURN = "litmus_after_return"
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
RANGE_REUSED = "grace period: range reused"
COPIED_WRITABLE = "grace period: copied while writable"
LOST_WRITE = "write into a retired source frame"
OVERWRITTEN = "read of an overwritten version"
DROPPED = "a write is dropped with its page"
FREE = "access to a free frame"
FOREIGN = "read of a frame that is not the page's"
OVERWRITTEN = "read of an overwritten version"
RETURNED = "grace period: permission outlives the call"
FAILED = "allocation failed"
NO_PERMISSION = "no permission"
TRACKING = "write not noticed"
WRONG_VERSION = "wrong version"


def never(policy: str | type[Policy], *reached: str) -> Expectation:
    """Nothing may break under this policy on any architecture; the counters show that it could have."""
    return Expectation(_name(policy), "Never", "Never", "Never", reached)


def sometimes(policy: str | type[Policy], *rules: str) -> Expectation:
    """One of these rules (any if none is named) breaks in some interleaving on every architecture."""
    return Expectation(_name(policy), "Sometimes", "Sometimes", "Sometimes", (), rules)


def _name(policy: str | type[Policy]) -> str:
    """What the policy is called on the command line; a class of one's own by its file."""
    if isinstance(policy, str):
        return policy
    if not (isinstance(policy, type) and issubclass(policy, Policy)):
        raise TypeError(f"{policy!r} is no policy: its name, or a class derived from Policy")
    module = sys.modules[policy.__module__]
    file = Path(module.__file__ or "")
    if policy.__module__.startswith(("emulator.", "scenarios.")) or not file.name:
        return policy.name
    here = Path.cwd()
    return f"{file.relative_to(here) if file.is_relative_to(here) else file}:{policy.__qualname__}"


def postings_never(*reached: str) -> tuple[Expectation, ...]:
    """As `never`, under each posting."""
    return tuple(never(policy, *reached) for policy in POSTINGS)


def luf_never(*reached: str) -> tuple[Expectation, ...]:
    """As `never`, under all versions of LUF, as posted and as meant."""
    return tuple(never(policy, *reached) for policy in LUF)


def never_on_x86(policy: str, *reached: str) -> Expectation:
    """As `never`, asked on x86 alone: the other architectures have many more states."""
    return Expectation(policy, None, "Never", None, reached)


def luf_sometimes(*rules: str) -> tuple[Expectation, ...]:
    """As `sometimes`, under all versions of LUF, as posted and as meant."""
    return tuple(sometimes(policy, *rules) for policy in LUF)


def broken_on_arm64(expectation: Expectation, *rules: str) -> Expectation:
    """The same, but on arm64 one of these rules breaks."""
    return expectation._replace(arm64="Sometimes", rules=(*expectation.rules, *rules))


def postings_sometimes(*rules: str) -> tuple[Expectation, ...]:
    """As `sometimes`, under each posting."""
    return tuple(sometimes(policy, *rules) for policy in POSTINGS)
