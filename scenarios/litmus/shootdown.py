"""The shootdown itself: unmap, interrupt, wait for acknowledgements, and only then use the frame again."""

from __future__ import annotations

from emulator.machine.litmus import Litmus
from scenarios.litmus.answers import RECEIVED, REUSED, STALE, never, sometimes
from scenarios.litmus.starts import cached_page
from scenarios.litmus.steps import moves_and_reuses, reader

# CPU 0 moves and reuses            CPU 1 has frame 1 cached
# entry = migration entry
# IPI to CPU 1
# copy, map frame 2, free frame 1
# allocate frame 1, clear it
#                                   read through the old translation: is the 0 of somebody else visible?
#                                   handle the IPI, acknowledge
SHOOTDOWN = Litmus(
    name="shootdown",
    question="May a frame be reused before every CPU that may have it cached has acknowledged the flush?",
    programs=(moves_and_reuses, reader),
    setup=cached_page,
    expected=(
        never("immediate", RECEIVED, REUSED, STALE),
        sometimes("mistake:no-wait-for-acknowledgements"),
        sometimes("mistake:interrupt-to-nobody"),
    ),
    fast=1,
    slow=2,
)
