"""The generation of a request: when it is taken, and how it is compared when the counter has wrapped."""

from __future__ import annotations

from emulator.kernel.user import user_read
from emulator.machine.litmus import Litmus, Setup
from emulator.policies.migrc import GENERATION_BITS, MIGRC_GEN, migrc_done_word
from emulator.policies.migrc_v9 import GENERATION_BITS as SHORT_BITS
from emulator.policies.migrc_v9 import MIGRC_GEN_BEGUN, MIGRC_GEN_DONE
from scenarios.litmus.answers import DEFERRED, REUSED, SKIPPED, STALE, never, postings_never, sometimes
from scenarios.litmus.starts import PAGE, Start, cached_page
from scenarios.litmus.steps import call, flush_for_own_reasons, in_order, moves_and_reuses, reader


def _generation(gen: int, done: int) -> Start:
    """One cached page, so many generations ago, each CPU having noted `done` last."""

    def setup_page(setup: Setup) -> None:
        cached_page(setup)
        setup.word(MIGRC_GEN, gen)
        for cpu in range(setup.cpus):
            setup.word(migrc_done_word(cpu), done)

    return setup_page


# CPU 0 demotes, then needs memory  CPU 1
# generation 1 (too early)
#                                   load 1, flush, note 1
#                                   read: walks, caches frame 1 again
# unmap, keep generation 1
# CPU 1 is done: free frame 1, reuse
#                                   read frame 1
BEFORE_UNMAP = Litmus(
    name="generation-before-unmap",
    question="Does it matter that a request takes its generation after the unmap?",
    programs=(
        moves_and_reuses,
        in_order(call(flush_for_own_reasons), call(user_read, PAGE), call(user_read, PAGE)),
    ),
    setup=_generation(0, 0),
    expected=(*postings_never(SKIPPED, REUSED), sometimes("mistake:generation-before-unmap")),
    fast=1,
    slow=2,
)


def _last_generation(setup: Setup) -> None:
    """Of the counter with notes, and of the shorter one without."""
    last = (1 << GENERATION_BITS) - 1
    _generation(last, last)(setup)
    for word in (MIGRC_GEN_BEGUN, MIGRC_GEN_DONE):
        setup.word(word, (1 << SHORT_BITS) - 1)


# The counter stands at its last value, and CPU 1 has noted that value.
# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
# unmap, generation wraps to 0
# is CPU 1's note before 0? It is, by one.
# IPI, free frame 1, reuse
#                                   read
WRAPS = Litmus(
    name="generation-wraps",
    question="Does comparing by the sign of the difference survive the wrap of the counter?",
    programs=(moves_and_reuses, reader),
    setup=_last_generation,
    expected=(
        *postings_never(DEFERRED, REUSED, STALE),
        sometimes("mistake:plain-comparison"),
        sometimes("mistake:generation-zero"),
    ),
    fast=1,
    slow=2,
)

# CPU 1 has not flushed while two batches of other processes raised the generation to 2; of a counter of
# two bits this request's 3 lies as far before CPU 1's 0 as behind it.
# CPU 0 demotes, then needs memory  CPU 1 has frame 1 cached
# unmap, generation 3
# is CPU 1's note 0 before 3? Taken for later.
# free frame 1, reuse
#                                   read frame 1
HALF_THE_RANGE = Litmus(
    name="generation-half-range",
    question="What if a CPU has not flushed for more than half of the counter's range?",
    programs=(moves_and_reuses, reader),
    setup=_generation(2, 0),
    expected=(
        never("migrc:v3", DEFERRED, REUSED, STALE),
        never("migrc:rfc2", DEFERRED, REUSED, STALE),
        sometimes("mistake:narrow-generation"),
    ),
    fast=1,
    slow=2,
)
