"""Policies that are wrong on purpose: one mistake each, to see that some check catches it."""

from __future__ import annotations

from collections.abc import Callable

from emulator.kernel.policy import Policy
from scenarios.mistakes.deadlocks import InterruptsOff, LockOrder, LostWakeUp
from scenarios.mistakes.flushing import (
    DeferredWithoutWaiting,
    FlushesBelowTheWatermarkOnly,
    FlushesRequestByRequest,
    FreedBeforeTheFlush,
    NoFlushForHighOrders,
    NoFlushUnderPressure,
    SwitchedOffForgets,
    WalksTheSharedList,
    WriteFaultForgets,
)
from scenarios.mistakes.interrupts import InterruptToNobody, NoWaitForAcknowledgements
from scenarios.mistakes.kernel_paths import ForkWithoutFlush, PageoutWithoutFlush, ZapWithoutFlush
from scenarios.mistakes.merged_mask import AddsWhileFlushing, EmptyMeansDone
from scenarios.mistakes.notes import (
    GenerationReadAfterFlush,
    NoBarrierAfterFlush,
    NoBarrierBeforeFlush,
    NobodyIsSkipped,
    NoteBeforeFlush,
    PlainComparison,
    SkipTestInverted,
    narrow_generation,
)
from scenarios.mistakes.requests import (
    DefersWritable,
    GenerationBeforeUnmap,
    HungTooEarly,
    MarksWhatIsPending,
    MaskBeforeUnmap,
    MovedAgainWithoutFlush,
    NotUndone,
)

_CLASSES: tuple[type[Policy], ...] = (
    NoWaitForAcknowledgements,
    InterruptToNobody,
    ForkWithoutFlush,
    PageoutWithoutFlush,
    ZapWithoutFlush,
    NoBarrierBeforeFlush,
    NoBarrierAfterFlush,
    GenerationReadAfterFlush,
    NoteBeforeFlush,
    PlainComparison,
    SkipTestInverted,
    NobodyIsSkipped,
    GenerationBeforeUnmap,
    MaskBeforeUnmap,
    DefersWritable,
    NotUndone,
    MarksWhatIsPending,
    MovedAgainWithoutFlush,
    HungTooEarly,
    FreedBeforeTheFlush,
    DeferredWithoutWaiting,
    FlushesRequestByRequest,
    WalksTheSharedList,
    WriteFaultForgets,
    NoFlushUnderPressure,
    NoFlushForHighOrders,
    FlushesBelowTheWatermarkOnly,
    SwitchedOffForgets,
    EmptyMeansDone,
    AddsWhileFlushing,
    InterruptsOff,
    LockOrder,
    LostWakeUp,
)

MISTAKES: dict[str, Callable[[], Policy]] = {
    **{mistake.name: mistake for mistake in _CLASSES},
    "mistake:narrow-generation": narrow_generation,
}
