"""Events as a trace for Perfetto: a track for each CPU with its functions as slices, and who waits for whom.

Each call goes as a flow from its sender to the interrupt that takes it, to the acknowledgement, and back to
the end of the wait. Old frames of moved folios are slices of their own, counters have tracks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO, Final

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackDescriptor, TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from emulator.kernel.tlb import TLB_FLUSH_ALL
from scenarios.events.event import Event, Reason, What
from scenarios.events.event_file import EventHeader

NS_PER_STEP: Final = 1000
"""A step is drawn as long as a microsecond where there is no clock."""

_SEQUENCE: Final = 1
_PID: Final = 1
_RUN: Final = 1
_CPUS: Final = 16  # tracks are numbered: the run, then CPUs, then what is found on the way
_CALLS: Final = 32  # bits of a request's number in a flow's


class _Tracks:
    """Writes packets; tracks are declared when something first happens on them."""

    def __init__(self, header: EventHeader, into: BinaryIO) -> None:
        self._builder = StreamingTraceProtoBuilder(into)
        self._scale = NS_PER_STEP if header.unit == "steps" else 1
        self._named: dict[str, int] = {}
        self._cpus = header.cpus
        run = TrackDescriptor(uuid=_RUN)
        run.process.pid = _PID
        run.process.process_name = header.title
        self._declare(run)
        for cpu in range(header.cpus):
            self._declare(
                TrackDescriptor(uuid=_CPUS + cpu, parent_uuid=_RUN, name=f"CPU {cpu}", sibling_order_rank=cpu)
            )

    def _declare(self, track: TrackDescriptor) -> None:
        packet = self._builder.create_packet()
        packet.track_descriptor.CopyFrom(track)
        packet.trusted_packet_sequence_id = _SEQUENCE
        self._builder.write_packet(packet)

    def named(self, name: str, *, counter: bool = False) -> int:
        """The track of that name, beside those of the CPUs."""
        if name not in self._named:
            uuid = self._named[name] = _CPUS + self._cpus + len(self._named)
            track = TrackDescriptor(uuid=uuid, parent_uuid=_RUN, name=name)
            if counter:
                track.counter.SetInParent()
            self._declare(track)
        return self._named[name]

    def write(self, at: int, event: TrackEvent) -> None:
        """One event of a track, at a time of the run."""
        packet: TracePacket = self._builder.create_packet()
        packet.timestamp = at * self._scale
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.CopyFrom(event)
        self._builder.write_packet(packet)


def write_perfetto(header: EventHeader, events: Iterable[Event], into: BinaryIO) -> int:
    """Write the trace; how many events it has."""
    tracks = _Tracks(header, into)
    targets: dict[tuple[int, int], tuple[int, ...]] = {}
    count = 0
    for event in events:
        count += 1
        at, cpu, what, name, values = event
        track = _CPUS + cpu if cpu >= 0 else tracks.named("run")
        if what is What.ENTER:
            tracks.write(at, TrackEvent(type=TrackEvent.TYPE_SLICE_BEGIN, track_uuid=track, name=name))
        elif what is What.LEAVE:
            tracks.write(at, TrackEvent(type=TrackEvent.TYPE_SLICE_END, track_uuid=track))
        elif what is What.COUNTER:
            track = tracks.named(name, counter=True)
            one = TrackEvent(type=TrackEvent.TYPE_COUNTER, track_uuid=track, counter_value=values[0])
            tracks.write(at, one)
        elif what is What.MOVED:
            track = tracks.named(f"old frame {values[0]}")
            moved = f"moved to frame {values[1]}, not free yet"
            tracks.write(at, TrackEvent(type=TrackEvent.TYPE_SLICE_BEGIN, track_uuid=track, name=moved))
        elif what is What.FREED:
            track = tracks.named(f"old frame {values[0]}")
            tracks.write(at, TrackEvent(type=TrackEvent.TYPE_SLICE_END, track_uuid=track))
        else:
            tracks.write(at, _instant(event, track, targets))
    return count


def _flow(sender: int, request: int, target: int) -> int:
    """The number of one call's flow, which is never 0."""
    return ((target + 1) << _CALLS | request) << 12 | sender


def _instant(event: Event, track: int, targets: dict[tuple[int, int], tuple[int, ...]]) -> TrackEvent:
    _, cpu, what, name, values = event
    one = TrackEvent(type=TrackEvent.TYPE_INSTANT, track_uuid=track)
    if what is What.SEND:
        request, _, *to = values
        one.name = f"send {name}"
        targets[cpu, request] = tuple(to)
        one.flow_ids.extend(_flow(cpu, request, target) for target in to)
        _note(one, "targets", ",".join(map(str, to)))
    elif what is What.TAKE:
        sender, request = values
        one.name = f"take {name}"
        one.flow_ids.append(_flow(sender, request, cpu))
        _note(one, "sender", sender)
    elif what is What.ACK:
        sender, request = values
        one.name = "acknowledge"
        one.flow_ids.append(_flow(sender, request, cpu))
        _note(one, "sender", sender)
    elif what is What.ACKED:
        one.name = "all acknowledged"
        to = list(targets.pop((cpu, values[0]), ()))
        one.terminating_flow_ids.extend(_flow(cpu, values[0], target) for target in to)
    elif what is What.FLUSH:
        reason, pages = values
        one.name = "TLB flush"
        _note(one, "pages", "all" if pages == TLB_FLUSH_ALL else pages)
        _note(one, "reason", Reason(reason).name.lower().replace("_", " "))
    elif what is What.TASK:
        one.name = f"task {values[0]}"
        _note(one, "mm", values[1])
    else:
        one.name = name
        one.categories.append(what.name.lower())
    return one


def _note(event: TrackEvent, name: str, value: Any) -> None:
    note = event.debug_annotations.add(name=name)
    if isinstance(value, int):
        note.int_value = value
    else:
        note.string_value = value
