"""The basic promise of MIGRC: old translations may be used until the flush; the source stays until then."""

from __future__ import annotations

from emulator.machine.litmus import Litmus
from scenarios.litmus.answers import DEFERRED, REUSED, SKIPPED, STALE, never, postings_never, sometimes
from scenarios.litmus.starts import cached_page
from scenarios.litmus.steps import call, flush_for_own_reasons, in_order, moves_and_reuses, reader

# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
# entry = migration entry
# generation + 1, no IPI
# copy, map frame 2 read-only
#                                   read frame 1: fine, it is a copy
# take the list, IPI, wait
#                                   handle the IPI
# free frame 1, allocate, clear it
#                                   read: must find frame 2
DEFERRED_COPY = Litmus(
    name="deferred-copy",
    question="Is the source of a deferred migration freed only after everybody has lost its translation?",
    programs=(moves_and_reuses, reader),
    setup=cached_page,
    expected=(
        never("migrc:v3", DEFERRED, REUSED, STALE),
        never("migrc:rfc1", DEFERRED, REUSED, STALE),
        never("migrc:rfc2", DEFERRED, REUSED, STALE),
        never("migrc:v9", DEFERRED, REUSED, STALE),
        sometimes("mistake:freed-before-the-flush"),
        sometimes("mistake:deferred-without-waiting"),
        sometimes("mistake:skip-test-inverted"),
    ),
    fast=1,
    slow=2,
)


# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
# unmap, generation 1
#                                   flush for a reason of its own, note generation 1
# take the list: CPU 1 is done
# no IPI, free frame 1, reuse it
#                                   read: misses and finds frame 2
FLUSHED_SINCE = Litmus(
    name="flushed-since",
    question="Is a CPU that has flushed since the unmap left alone, and rightly so?",
    programs=(moves_and_reuses, in_order(call(flush_for_own_reasons), reader)),
    setup=cached_page,
    expected=(
        *postings_never(DEFERRED, SKIPPED, REUSED),
        sometimes("mistake:nobody-is-skipped", "needless interrupt"),
    ),
    fast=1,
    slow=2,
)
