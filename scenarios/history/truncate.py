"""Bugs of taking pages away from files."""

from __future__ import annotations

from emulator.checks.coherence import CACHE
from emulator.machine.litmus import Litmus, Setup
from scenarios.history.bug import Bug
from scenarios.litmus.answers import AFTER_RETURN, never, sometimes
from scenarios.litmus.file_sizes import SIZES
from scenarios.litmus.starts import FILE, PAGE, file_page
from scenarios.litmus.steps import call, finds, in_order, once_returned, read, returns
from scenarios.litmus.syscalls import punch_hole


def _stored(setup: Setup) -> None:
    file_page(cached=(), stored=True)(setup)
    setup.file_size(FILE, 1)


PUNCHED_BESIDE_FAULTS = Bug(
    name="hole-punched-beside-faults",
    title="a fault reads a page in again from blocks that hole punching is about to free",
    kinds=("WO",),
    story="CPU 0 (fallocate, FALLOC_FL_PUNCH_HOLE) has taken the range out of the page cache, and will take "
    "the blocks away next. CPU 1 reads there: i_size says nothing against it, and the fault reads the old "
    "page in. CPU 0 frees the blocks and returns; the old page stays mapped over blocks that are somebody "
    "else's by now.",
    affected="ext4 before v4.5",
    source="the commit, ea3d7209ca01da209cda6f0dea8be9cc4b7a933b; the CVE's record",
    fix="ea3d7209ca01",
    cve="CVE-2015-8839",
    test=Litmus(
        name="hole-punched-beside-faults",
        question="A fault comes while a hole is punched: is what was there read once that is done?",
        programs=(
            in_order(call(punch_hole), returns),
            in_order(call(read, PAGE), once_returned(call(finds, 0))),
        ),
        setup=_stored,
        expected=(
            never("immediate", AFTER_RETURN),
            sometimes("mistake:before-ea3d7209ca01", CACHE),
        ),
        frugal=False,
        settings=SIZES,
    ),
    before="mistake:before-ea3d7209ca01",
    left_out="that the blocks are given to another file.",
)
