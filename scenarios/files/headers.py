"""What a recording is about: its header made from what is to run, and the machine made again from its header.

Nothing here starts anything, and no Ray is needed: a recording is replayed in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.mode import Chaos
from emulator.machine.protocols import Machine
from emulator.measure.digest import digest
from scenarios.files.recording import Header, Recording, Trace
from scenarios.files.witness import project_version
from scenarios.subjects.programs import LitmusName, machine_of, policy_factory
from scenarios.subjects.workload_machine import build_machine
from scenarios.usage import UsageProblem
from scenarios.workloads.settings import Workload
from scenarios.workloads.user_space import user_space


def workload_header(
    workload: Workload, *, policy: str, arch: str, cpus: int, seed: int, trace: Path | None
) -> Header:
    """The header for a run of a workload."""
    return Header(
        kind="workload",
        scenario=workload.name,
        policy=policy,
        arch=arch,  # type: ignore[arg-type]
        cpus=cpus,
        seed=seed,
        workload=_settings(workload),
        trace=None if trace is None else Trace(path=str(trace.resolve()), blake2b=_hash(trace)),
        project=project_version(),
    )


def litmus_header(test: LitmusName, policy: str, arch: str, cpus: int, chaos: Chaos | None) -> Header:
    """The header for a stressed run of a litmus test."""
    return Header(
        kind="litmus",
        scenario=test.name,
        file=test.file,
        policy=policy,
        arch=arch,  # type: ignore[arg-type]
        cpus=cpus,
        seed=0 if chaos is None else chaos.seed,
        chaos=None if chaos is None else chaos._asdict(),
        project=project_version(),
    )


def recorded_machine(recording: Recording) -> Machine:
    """The machine that was recorded. UsageProblem if it cannot be built here."""
    header = recording.header
    if header.kind == "litmus":
        machine: Machine = machine_of(LitmusName(header.scenario, header.file), header.policy, header.arch)
    else:
        machine = _workload_machine(recording)
    if machine.cpus != header.cpus:
        raise UsageProblem(
            f"{recording.path}: recorded with {header.cpus} CPUs, but {header.scenario} has "
            f"{machine.cpus} by now; the version that recorded it ({header.project or 'unknown'})"
        )
    return machine


def tlb_digest(tlbs: Sequence[Any]) -> str:
    """One name for the TLB entries of all CPUs."""
    return digest(tuple(tuple(tuple(entry) for entry in entries) for entries in tlbs))


def _workload_machine(recording: Recording) -> Machine:
    header = recording.header
    try:
        workload = Workload.model_validate(header.workload)
    except ValidationError as problem:
        error = problem.errors()[0]
        where = ".".join(str(part) for part in error["loc"]) or "it"
        raise UsageProblem(
            f"{recording.path}: workload: {where}: {error['msg']}; a recording of this version of migrc"
        ) from None
    workload.check(header.cpus)
    user = user_space(workload, header.cpus, header.seed, _trace(recording))
    return build_machine(workload, header.cpus, header.arch, policy_factory(header.policy), user)


def _settings(workload: Workload) -> dict[str, Any]:
    """Every setting as it was, whatever its default will be, without those that the kind has no use for."""
    settings = workload.model_dump()
    threads = settings["threads"]
    if workload.kind == "replay":
        settings["threads"] = {name: threads[name] for name in ("per_cpu", "processes")}
    elif workload.kind == "xsbench":
        settings["threads"] = {name: threads[name] for name in ("per_cpu",)}
    for kind in {"replay", "xsbench"} - {workload.kind}:
        del settings[kind]
    return settings


def _trace(recording: Recording) -> Path | None:
    """The trace that was replayed: where it was, beside the recording, or the shipped one of that name."""
    trace = recording.header.trace
    if trace is None:
        return None
    name = Path(trace.path).name
    shipped = Path(__file__).parents[1] / "traces" / "data"
    places = [
        path for path in (Path(trace.path), recording.path.parent / name, shipped / name) if path.is_file()
    ]
    for path in places:
        if _hash(path) == trace.blake2b:
            return path
    if places:
        raise UsageProblem(
            f"{places[0]}: not the trace that was recorded with; the file with BLAKE2b {trace.blake2b}"
        )
    raise UsageProblem(f"{recording.path}: needs the trace {trace.path}; there, or beside the recording")


def _hash(path: Path) -> str:
    try:
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    except OSError as problem:
        raise UsageProblem(f"{path}: {problem.strerror}; a trace made by migrc trace import") from None
