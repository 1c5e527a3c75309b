"""What the live engine promises to programs, on real concurrent actors. Nothing here depends on timing."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from actors.errors import LostActor
from actors.mode import Chaos, Mode
from actors.session import LiveResult, LiveSession, ProgramError, SessionError, register
from emulator.checks.onlooker import Watcher
from emulator.checks.violation import Violation
from emulator.hardware.cpu import IpiRequest, Transition
from emulator.hardware.operations import (
    AckIpi,
    AtomicAdd,
    AtomicAnd,
    AtomicOr,
    Cycle,
    FlushTlb,
    Halt,
    Load,
    LoadCr3,
    LocalIrqDisable,
    LocalIrqEnable,
    Lock,
    Operation,
    SendIpi,
    Series,
    SmpMb,
    Store,
    Touch,
    Translate,
    Unlock,
    WaitAcks,
    WaitFor,
)
from emulator.hardware.tlb import TlbShape
from tests.live.lab import Body, Lab, LabMachine

pytestmark = pytest.mark.live

register(sys.modules[__name__])


def logs(result: LiveResult) -> list[list[object]]:
    return [cpu["log"] for cpu in result.cpus]


async def until_done(lab: Lab) -> None:
    """Be there to be interrupted until some CPU says that it is over."""
    await WaitFor("done", 1)


def locker(rounds: int) -> Body:
    async def body(lab: Lab) -> None:
        for _ in range(rounds):
            await Lock("lock")
            seen = await Load("count")
            await Store("count", seen + 1)
            await Unlock("lock")

    return body


def shooter(rounds: int, targets: Sequence[int], last: bool = True) -> Body:
    async def body(lab: Lab) -> None:
        for _ in range(rounds):
            await lab.shoot(targets)
        if last:
            await Store("done", 1)

    return body


# --- waiting -----------------------------------------------------------------------------------


def test_a_contended_lock_excludes_and_loses_no_waiter(session: LiveSession) -> None:
    result = session.run(LabMachine([locker(150)] * 4))
    assert result.memory == {"words": {"count": 600}, "holders": {}}


def test_sixteen_cpus_on_one_lock(session: LiveSession) -> None:
    result = session.run(LabMachine([locker(20)] * 16))
    assert result.memory["words"]["count"] == 320


def test_a_word_waited_for_wakes_everybody_once_it_has_its_value(session: LiveSession) -> None:
    async def waiter(lab: Lab) -> None:
        lab.log.append(await WaitFor("go", 3))
        await AtomicAdd("arrived", 1)

    async def starter(lab: Lab) -> None:
        for value in (1, 2, 3):
            await Store("go", value)
        lab.log.append(await WaitFor("arrived", 3))

    assert logs(session.run(LabMachine([starter, waiter, waiter, waiter]))) == [[3], [3], [3], [3]]


def test_turns_taken_by_waiting_for_each_other(session: LiveSession) -> None:
    def player(turn: int) -> Body:
        async def body(lab: Lab) -> None:
            for value in range(turn, 200, 2):
                assert await WaitFor("turn", value) == value
                await Store("turn", value + 1)

        return body

    assert session.run(LabMachine([player(0), player(1)])).memory["words"]["turn"] == 200


# --- interrupts --------------------------------------------------------------------------------


def test_every_shootdown_is_acknowledged_by_every_target(session: LiveSession) -> None:
    result = session.run(LabMachine([shooter(100, (1, 2, 3)), until_done, until_done, until_done]))
    # Each request is acknowledged before the next, so that none can share an interrupt.
    assert result.tlb_interrupts == [0, 100, 100, 100]
    assert result.round_trip.summary()["count"] == 100
    assert result.delivery.summary()["count"] == result.handler.summary()["count"] == 300


def test_a_shootdown_flushes_the_tlb_of_its_target(session: LiveSession) -> None:
    async def target(lab: Lab) -> None:
        await LoadCr3(1, 1, False)
        lab.cpu.tlb.insert(1, 5, 0x5063)
        lab.log.append(await Translate(5, False))
        await Store("filled", 1)
        await WaitFor("done", 1)
        lab.log.append(await Translate(5, False))

    async def sender(lab: Lab) -> None:
        await WaitFor("filled", 1)
        await lab.shoot((1,))
        await Store("done", 1)

    assert logs(session.run(LabMachine([sender, target])))[1] == [0x5063, 0]


def test_all_cpus_shooting_at_each_other_come_to_an_end(session: LiveSession) -> None:
    def everybody_but(me: int) -> Body:
        async def body(lab: Lab) -> None:
            for _ in range(40):
                await lab.shoot([cpu for cpu in range(4) if cpu != me])
            await AtomicAdd("finished", 1)
            await WaitFor("finished", 4)

        return body

    result = session.run(LabMachine([everybody_but(me) for me in range(4)]))
    assert result.round_trip.summary()["count"] == 160
    assert result.delivery.summary()["count"] == 480


def test_an_interrupt_is_taken_while_waiting_for_a_lock(session: LiveSession) -> None:
    async def holder(lab: Lab) -> None:
        await Lock("lock")
        await Store("held", 1)
        await WaitFor("waiting", 1)
        for _ in range(20):
            await lab.shoot((1,))
        await Unlock("lock")

    async def waiter(lab: Lab) -> None:
        await WaitFor("held", 1)
        await Store("waiting", 1)
        await Lock("lock")
        lab.log.append(lab.tlb_interrupts)
        await Unlock("lock")

    assert logs(session.run(LabMachine([holder, waiter])))[1] == [20]


def test_a_wake_up_during_a_handler_is_not_lost(session: LiveSession) -> None:
    async def handler(lab: Lab, request: IpiRequest) -> None:
        # Not before the lock is free: so that word of it comes while this handler runs.
        await AckIpi(request.sender, request.number)
        await WaitFor("freed", 1)
        lab.log.append("handler")

    async def holder(lab: Lab) -> None:
        await Lock("lock")
        await Store("held", 1)
        await WaitFor("waiting", 2)
        await lab.shoot((1,))
        await Unlock("lock")
        # The third CPU is offered the lock although the first one asked was busy.
        await WaitFor("taken", 1)
        await Store("freed", 1)

    async def interrupted(lab: Lab) -> None:
        await WaitFor("held", 1)
        await AtomicAdd("waiting", 1)
        await Lock("lock")
        lab.log.append("lock")
        await Unlock("lock")

    async def third(lab: Lab) -> None:
        await WaitFor("held", 1)
        await AtomicAdd("waiting", 1)
        await Lock("lock")
        await Unlock("lock")
        await Store("taken", 1)

    machine = LabMachine([holder, interrupted, third], handler, acknowledge=False)
    assert logs(session.run(machine))[1] == ["handler", "lock"]


def test_no_interrupt_while_they_are_off(session: LiveSession) -> None:
    async def deaf(lab: Lab) -> None:
        await LocalIrqDisable()
        await Store("off", 1)
        await WaitFor("sent", 1)
        for _ in range(50):
            await Cycle()
            await Load("sent")
        lab.log.append(lab.tlb_interrupts)
        await LocalIrqEnable()
        await SmpMb()
        await WaitFor("done", 1)
        lab.log.append(lab.tlb_interrupts)

    async def sender(lab: Lab) -> None:
        await WaitFor("off", 1)
        number = await SendIpi((1,), "flush", (), True)
        await Store("sent", 1)
        await WaitAcks(number)
        await Store("done", 1)

    assert logs(session.run(LabMachine([sender, deaf])))[1] == [0, 1]


def test_halt_ends_with_the_interrupt_and_not_before(session: LiveSession) -> None:
    async def idle(lab: Lab) -> None:
        for _ in range(30):
            await Halt()
            lab.log.append(lab.tlb_interrupts)

    result = session.run(LabMachine([shooter(30, (1,), last=False), idle]))
    assert logs(result)[1] == list(range(1, 31))


def test_a_long_touch_is_interrupted_and_goes_on(session: LiveSession) -> None:
    async def toucher(lab: Lab) -> None:
        await LoadCr3(1, 1, False)
        accesses = tuple(page << 1 for page in range(8)) * 12_500
        pauses = 0
        await Store("touching", 1)
        while lab.tlb_interrupts < 3:
            index = 0
            while index < len(accesses):
                for page in range(8):
                    lab.cpu.tlb.insert(1, page, page << 12 | 0x63)
                before = index
                index = await Touch(accesses, index, len(accesses))
                lab.accesses += index - before
                pauses += index < len(accesses)
        lab.log.append(pauses > 0)
        lab.log.append(lab.accesses % len(accesses))

    async def sender(lab: Lab) -> None:
        await WaitFor("touching", 1)
        for _ in range(3):
            await lab.shoot((1,))

    result = session.run(LabMachine([sender, toucher]))
    assert logs(result)[1] == [True, 0]
    assert result.accesses >= 100_000


# --- order -------------------------------------------------------------------------------------


def test_a_series_is_answered_in_its_order(session: LiveSession) -> None:
    async def body(lab: Lab) -> None:
        await Store("a", 7)
        members = (Load("a"), Store("a", 8), Load("a"), AtomicAdd("a", 2), Load("b"))
        lab.log.extend(await Series(members))
        lab.log.append(await Series((Store("b", 1), Store("c", 2))))
        lab.log.append(await Series(()))
        lab.log.extend(await Series((Load("b"), Load("c"))))

    assert logs(session.run(LabMachine([body]))) == [[7, None, 8, 10, 0, [None, None], [], 1, 2]]


def test_an_acknowledgement_never_overtakes_the_stores_before_it(session: LiveSession) -> None:
    """Stores of a handler and of the program under it are seen by whoever has its acknowledgement."""

    async def quiet(lab: Lab, request: IpiRequest) -> None:
        lab.log.append(lab.accesses)

    async def storing(lab: Lab, request: IpiRequest) -> None:
        await quiet(lab, request)
        await Store("issued", lab.accesses)

    async def sender(lab: Lab) -> None:
        for _ in range(150):
            await lab.shoot((1,))
            lab.log.append(await Load("issued"))
        await Store("done", 1)

    async def target(lab: Lab) -> None:
        while not await Load("done"):
            for _ in range(5):
                lab.accesses += 1
                await Store("issued", lab.accesses)
                # Issued, but nothing has been asked since. Long enough for an interrupt to come here.
                for _ in range(100):
                    await FlushTlb()

    for handler in (quiet, storing):
        seen, issued = logs(session.run(LabMachine([sender, target], handler)))
        # An interrupt can come before a store that is counted already, so that it may be one behind.
        assert all(value >= count - 1 for value, count in zip(seen, issued, strict=True))


def test_a_request_never_overtakes_the_stores_before_it(session: LiveSession) -> None:
    async def handler(lab: Lab, request: IpiRequest) -> None:
        lab.log.append(await Load("message") - request.number)

    async def sender(lab: Lab) -> None:
        for number in range(1, 101):
            await Store("message", number)
            await lab.shoot((1,))
        await Store("done", 1)

    assert logs(session.run(LabMachine([sender, until_done], handler)))[1] == [0] * 100


def test_what_is_posted_arrives_although_nothing_is_ever_asked(session: LiveSession) -> None:
    async def poster(lab: Lab) -> None:
        for value in range(1000):
            await Store(f"word{value}", value)

    words = session.run(LabMachine([poster])).memory["words"]
    assert words == {f"word{value}": value for value in range(1000)}


def test_masks_of_sixty_four_cpus_travel(session: LiveSession) -> None:
    async def body(lab: Lab) -> None:
        await AtomicOr("mask", (1 << 64) - 1)
        await AtomicAnd("mask", ~(1 << 63))
        lab.log.append(await Load("mask"))

    assert logs(session.run(LabMachine([body]))) == [[(1 << 63) - 1]]


def test_checks_observe_what_memory_carried_out(session: LiveSession) -> None:
    async def body(lab: Lab) -> None:
        await Store("word", 666)
        await Load("word")

    result = session.run(LabMachine([body, body], checked=True))
    assert ("no 666", 0, "Store") in result.violations
    assert result.violations[-1] == ("no 666", -1, "at the end")
    assert result.memory["seen"] == 4


class AllTranslations(Watcher):
    """Wants to know of what the shipped ones ignore."""

    def happened(
        self, transition: Transition, operation: Operation | None, issued: bool, answer: Any
    ) -> None:
        if isinstance(operation, Translate):
            self.violations.append(Violation("translated", transition.cpu, f"{operation.vpn:#x}"))


class WatchedLab(LabMachine):
    def watchers(self) -> list[Any]:
        return [*super().watchers(), AllTranslations()]


@pytest.mark.parametrize("chaos", [None, Chaos(seed=1)])
def test_a_watcher_of_ones_own_is_told_what_others_ignore(session: LiveSession, chaos: Chaos | None) -> None:
    async def body(lab: Lab) -> None:
        await Translate(0x50 + lab.number, False)

    result = session.run(WatchedLab([body, body]), mode=Mode(watched=True, chaos=chaos))
    assert sorted(result.violations) == [("translated", 0, "0x50"), ("translated", 1, "0x51")]


def test_progress_is_reported(session: LiveSession) -> None:
    reports: list[dict[str, object]] = []
    session.run(LabMachine([locker(300)] * 4), reports.append)
    assert all(set(report) == {"accesses", "cpus", "halted", "elapsed_ns"} for report in reports)


# --- failures ----------------------------------------------------------------------------------


def fail(lab: Lab) -> None:
    raise LookupError("no such policy state")


def test_a_program_that_raises_ends_the_run_and_says_where(session: LiveSession) -> None:
    async def broken(lab: Lab) -> None:
        await Store("word", 1)
        fail(lab)

    with pytest.raises(ProgramError) as caught:
        session.run(LabMachine([until_done, until_done, broken]))
    fault = caught.value.fault
    assert (caught.value.cpu, fault.kind, fault.message) == (2, "LookupError", "no such policy state")
    assert fault.file.endswith("test_engine.py")
    assert fault.line == fail.__code__.co_firstlineno + 1
    # The actors are in order again for the next run.
    assert session.run(LabMachine([locker(5)] * 3)).memory["words"]["count"] == 15


def test_a_program_that_exits_is_an_error_too(session: LiveSession) -> None:
    async def leaver(lab: Lab) -> None:
        await Load("word")
        raise SystemExit(3)

    with pytest.raises(ProgramError, match="SystemExit"):
        session.run(LabMachine([until_done, leaver]))


def test_an_operation_that_memory_rejects_names_its_cpu(session: LiveSession) -> None:
    async def careless(lab: Lab) -> None:
        await Unlock("never taken")
        await Load("word")

    with pytest.raises(ProgramError, match="never taken") as caught:
        session.run(LabMachine([until_done, careless]))
    assert caught.value.cpu == 1


def test_a_call_to_a_cpu_that_has_ended_is_reported(session: LiveSession) -> None:
    async def ends(lab: Lab) -> None:
        await Store("ended", 1)

    async def calls(lab: Lab) -> None:
        await WaitFor("ended", 1)
        for _ in range(2):
            await lab.shoot((1,))

    with pytest.raises(ProgramError, match="whose program has ended"):
        session.run(LabMachine([calls, ends]))


def test_a_deadlock_is_reported_with_what_each_cpu_waits_for(session: LiveSession) -> None:
    def shoots_deaf(target: int) -> Body:
        async def body(lab: Lab) -> None:
            await LocalIrqDisable()
            await lab.shoot((target,))

        return body

    with pytest.raises(SessionError, match=r"CPU 0: WaitAcks\(1\), interrupts off; CPU 1: WaitAcks"):
        session.run(LabMachine([shoots_deaf(1), shoots_deaf(0)]), patience_s=4.0)


def test_a_cpu_that_never_stops_computing_is_named_and_replaced(session: LiveSession) -> None:
    async def runaway(lab: Lab) -> None:
        await Load("word")
        while True:
            pass

    with pytest.raises(SessionError, match="CPU 1: busy in its own code"):
        session.run(LabMachine([until_done, runaway]), patience_s=4.0)
    assert session.run(LabMachine([locker(5)] * 2)).memory["words"]["count"] == 10


@pytest.mark.parametrize(
    ("how", "told"), [("SIGKILL", "CPU 1 died"), ("SIGSTOP", "CPU 1 is lost: nothing was heard of it for")]
)
def test_an_actor_that_dies_or_stalls_is_lost_and_replaced(session: LiveSession, how: str, told: str) -> None:
    async def ends(lab: Lab) -> None:
        await Load("word")
        os.kill(os.getpid(), getattr(signal, how))

    with pytest.raises(LostActor, match=f"the actor of {told}"):
        session.run(LabMachine([until_done, ends]), patience_s=6.0)
    assert session.run(LabMachine([locker(5)] * 2)).memory["words"]["count"] == 10


def test_a_machine_that_cannot_be_put_together_is_reported(session: LiveSession) -> None:
    machine = LabMachine([until_done])
    machine.shape = TlbShape(3, 2)
    with pytest.raises(ProgramError, match="ValueError: TlbShape: l1 needs entries divisible by ways"):
        session.run(machine)
