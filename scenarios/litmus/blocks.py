"""Blocks of several frames that do not need the same flush: every page of a block has to be asked.

v9 notes for each freed page the generation of the flush that it needs; whoever gets a block needs the latest.
"""

from __future__ import annotations

from emulator.hardware.operations import Store, WaitFor
from emulator.machine.litmus import FAST, Litmus, Setup
from emulator.policies.migrc_v9 import GENERATION_BITS, MIGRC_GEN, MIGRC_GEN_BEGUN, MIGRC_GEN_DONE
from emulator.policies.migrc_v9 import page_generation_word as page_word
from scenarios.litmus.answers import DEFERRED, FAILED, REUSED, STALE, never, postings_never, sometimes
from scenarios.litmus.huge import BATCHED, HEAD_FRAME, TAIL, one_huge_page
from scenarios.litmus.starts import AREA_PAGES, OTHER, PAGE, VERSION, Start
from scenarios.litmus.steps import MOVED, call, in_order, move, read, reuse

BLOCK = (2, 3)
LAST_GENERATION = (1 << GENERATION_BITS) - 1


def _half_free(used: int) -> Start:
    """Of the block of frames 2 and 3 one is OTHER's; the other one was freed with the counter's last value.

    That generation is done; the next one is 1.
    """

    def start(setup: Setup) -> None:
        setup.area(PAGE, AREA_PAGES)
        setup.page(PAGE, version=VERSION)
        zone = setup.memory.folios.zones[FAST]
        taken = [zone.rmqueue(0) for frame in BLOCK if frame < used]
        assert setup.page(OTHER, version=VERSION, cached=(1,)) == used
        for frame in taken:
            assert frame is not None
            zone.free_one_page(frame, 0)
        for word in (MIGRC_GEN, MIGRC_GEN_BEGUN, MIGRC_GEN_DONE, *map(page_word, BLOCK)):
            setup.word(word, LAST_GENERATION)
        setup.word(page_word(used), 0)

    return start


def _half_pending(name: str, used: int, *mistakes: str) -> Litmus:
    return Litmus(
        name=name,
        question="Half of a block needs an old flush, the other half a newer one: which is waited for?",
        programs=(in_order(call(move, used), call(reuse, FAST, 1)), call(read, OTHER)),
        setup=_half_free(used),
        expected=(
            never("immediate", REUSED),
            *postings_never(DEFERRED, REUSED, STALE),
            *(sometimes(mistake) for mistake in mistakes),
        ),
        fast=3,
        slow=2,
    )


# CPU 0                             CPU 1 has frame 2 cached
# demote frame 2, generation 1
# frames 2 and 3 merge: 1 and 65535
# allocate order 1: the later is 1
# IPI, reuse
#                                   read: not frame 2
HEAD_PENDING = _half_pending("block-with-pending-head", 2, "mistake:generations-unsigned")
TAIL_PENDING = _half_pending("block-with-pending-tail", 3, "mistake:asks-the-head-only")


# CPU 0                             CPU 1 has the huge page cached
# demote frames 2 and 3
# allocate: frame 2, flush
#                                   allocate: frame 3, which needs the same
#                                   read: not frame 3
HUGE_SHARED_OUT = Litmus(
    name="huge-batched-shared-out",
    question="Two CPUs get the halves of a freed huge page, one is flushing for it: does the other one wait?",
    programs=(
        in_order(call(move, HEAD_FRAME), Store(MOVED, 1), call(reuse, FAST)),
        in_order(WaitFor(MOVED, 1), call(reuse, FAST), call(read, TAIL)),
    ),
    setup=one_huge_page,
    expected=(
        never("immediate", REUSED),
        # As in two-allocators.
        sometimes("migrc:v3", FAILED),
        sometimes("migrc:rfc2", FAILED),
        never("migrc:v9", DEFERRED, REUSED),
        sometimes("mistake:notes-the-head-only"),
    ),
    fast=3,
    slow=3,
    settings=BATCHED,
)
