"""Events of what was recorded or found earlier: it is followed again on the plain engine, step by step.

That engine has no clock. Times are numbers of steps, which say what came before what and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emulator.explore.schedule import ScheduleProblem, format_transition
from emulator.hardware.cpu import Transition
from emulator.machine.referee import Referee
from scenarios.events.event import Event
from scenarios.events.listener import EventListener
from scenarios.files.recording import Recording
from scenarios.runs.replays import Look, Replay
from scenarios.subjects.subject import Subject

Emit = Callable[[Event], None]


def _listener(referee: Referee, emit: Emit, tlbs: bool) -> EventListener:
    engine = referee.engine
    listener = EventListener(
        engine.memory, engine.cpus, emit, lambda: engine.steps, referee.violations, steps=True, tlbs=tlbs
    )
    engine.listeners.append(listener)
    return listener


def tell_schedule(subject: Subject, schedule: Sequence[Transition], emit: Emit) -> None:
    """Events of a litmus test that goes this way. ScheduleProblem if it cannot."""
    referee = Referee(subject.litmus_machine())
    listener = _listener(referee, emit, tlbs=True)
    for number, transition in enumerate(schedule, start=1):
        if not referee.step(transition):
            raise ScheduleProblem(
                f"transition {number} ({format_transition(transition)}) is not possible there"
            )
        if referee.violation is not None or referee.error is not None:
            break
    else:
        referee.finish()
    listener.close()


def tell_recording(recording: Recording, emit: Emit, look: Look) -> None:
    """Events of a recorded run, as far as it goes the recorded way."""
    replay = Replay(recording, recording.machine())
    listener = _listener(replay.referee, emit, tlbs=recording.header.kind == "litmus")
    replay.run(look)
    listener.close()
