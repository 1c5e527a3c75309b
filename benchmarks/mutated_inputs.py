"""Files that nobody should send, given to the verbs that read them: what do they answer?

    python benchmarks/mutated_inputs.py 10000 --seed 0 [--format sweep]

Every format is mutated in its bytes and in its values (a value of another type, an enormous number, a key
that is missing, a frame twice); frames get the length and the CRC that belong to them, so that what is inside
is read. A mutant fails if it ends with a traceback, an exit code that README does not have, more than one
line of error, after more than ten seconds or with more than 1 GiB. Prints counts per format, and each kind of
failure with what makes it again.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import signal
import struct
import sys
import tempfile
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from actors.errors import SessionError
from actors.recorder import note
from emulator.explore.schedule import parse_schedule
from emulator.machine.referee import Referee
from scenarios.events.event_file import EventHeader, written
from scenarios.files.recording import MAGIC, Writer
from scenarios.files.unfinished import MAGIC as UNFINISHED
from scenarios.runs import trials
from scenarios.runs.event_sources import tell_schedule
from scenarios.runs.replays import SharedSum, end_of, sum_of
from scenarios.runs.swarm import Pace
from scenarios.runs.tally import Outcome, Tally
from scenarios.runs.tally_file import TallyFile
from scenarios.subjects.programs import LitmusName, machine_of
from scenarios.subjects.subject import Subject
from scenarios.traces.format import TraceWriter
from scenarios.verbs.cli import migrc
from scenarios.verbs.exits import exit_code
from scenarios.verbs.export import FORMATS as EXPORTS

CODES = frozenset({0, 1, 2, 3})
LONGEST_S = 10
LARGEST = 1 << 30
FRAME = struct.Struct(">II")
ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, float("nan"), float("inf"), "",
    "x", "\0", "../x", "a" * 5000, b"", b"\xff\xfe", [], [[]], {}, {"x": 1}, [0] * 3000,
)  # fmt: skip
DEEP = 3000
WORDS = (
    "-1", "0", "9" * 25, "nan", "inf", "1e400", "*", "[", "../..", "/dev/null", "a:b", "\u0661", "x" * 300,
    ":", "=", "..", ".", "0*9999999999", "--", "-", "%s", "{}", "~", "None", "1.5", "\u2028", "::", "host:0",
    "[::1]:99999",
)  # fmt: skip
OPTIONS = (
    ("replay", "{text}", "--litmus", "shootdown", "--policy", "immediate", "--arch", "x86"),
    (
        "run",
        "tiering",
        "--engine",
        "timed",
        "--quiet",
        "--cpus",
        "2",
        "--set",
        "threads.accesses=50",
        "--set",
        "{text}",
    ),
    ("sweep", "tiering", "--quiet", "--set", "threads.accesses=50", "--cpus", "2", "--vary", "{text}"),
    ("check", "shootdown", "--arch", "sc", "--schedules", "2", "--policy", "{text}"),
    ("check", "shootdown", "--arch", "sc", "--schedules", "2", "--rule", "{text}"),
    ("check", "{text}", "--policy", "immediate", "--arch", "sc", "--schedules", "2"),
    ("check", "shootdown", "--policy", "immediate", "--arch", "sc", "--schedules", "2", "--mmu", "{text}"),
    ("run", "tiering", "--address", "{text}"),
)

BROKEN = ("mprotect-reclaimed", "--policy", "mistake:before-3ea277194daa", "--arch", "sc")

Mutate = Callable[[Random, bytes], bytes]


def bytes_of(random: Random, whole: bytes) -> bytes:
    """Some bytes changed, taken out, doubled; or the end cut off."""
    found = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        at = random.randrange(len(found) + 1)
        length = random.choice((1, 1, 2, 8, 100))
        match random.randrange(5):
            case 0:
                found[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                del found[at : at + length]
            case 2:
                found[at:at] = found[at : at + length]
            case 3:
                found[at:at] = random.randbytes(length)
            case _:
                del found[at:]
    return bytes(found)


def value_of(random: Random, value: Any) -> Any:
    """Somewhere in a tree of values another value, one too many, or one too few."""
    if isinstance(value, dict) and value and random.random() < 0.9:
        key = random.choice(list(value))
        match random.randrange(6):
            case 0:
                return {one: two for one, two in value.items() if one != key}
            case 1:
                return {**value, random.choice(("x", "", key + "x" if isinstance(key, str) else "y")): 1}
            case _:
                return {**value, key: value_of(random, value[key])}
    if isinstance(value, (list, tuple)) and value and random.random() < 0.9:
        found = list(value)
        at = random.randrange(len(found))
        match random.randrange(6):
            case 0:
                del found[at]
            case 1:
                found.insert(at, found[at])
            case _:
                found[at] = value_of(random, found[at])
        return found
    if isinstance(value, int) and random.random() < 0.5:
        return value + random.choice((-1, 1, 1000, 2**32, 2**62))
    return random.choice(ODD)


def packed(value: Any) -> bytes:
    """As MessagePack; a number that it has no room for is cut."""
    while True:
        try:
            return msgpack.packb(value)
        except (OverflowError, ValueError):
            value = None


def _of_witness(random: Random, whole: bytes) -> bytes:
    return packed(value_of(random, msgpack.unpackb(whole)))


def _of_recording(random: Random, whole: bytes) -> bytes:
    head, frames, at = whole.partition(b"\n")[0] + b"\n", [], whole.index(b"\n") + 1
    while at < len(whole):
        length, _ = FRAME.unpack_from(whole, at)
        frames.append(whole[at + FRAME.size : at + FRAME.size + length])
        at += FRAME.size + length
    number = random.randrange(len(frames))
    match random.randrange(8):
        case 0:
            del frames[number]
        case 1:
            frames.insert(number, random.choice(frames))
        case _:
            frames[number] = packed(value_of(random, msgpack.unpackb(frames[number], use_list=False)))
    return head + b"".join(FRAME.pack(len(one), zlib.crc32(one)) + one for one in frames)


def _of_lines(random: Random, whole: bytes) -> bytes:
    lines = whole.splitlines()
    at = random.randrange(len(lines))
    match random.randrange(8):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, random.choice(lines))
        case 2:
            lines[at] = b"[" * DEEP + b"]" * DEEP
        case _:
            with contextlib.suppress(ValueError):
                lines[at] = json.dumps(value_of(random, json.loads(lines[at])), default=repr).encode()
    return b"\n".join(lines) + b"\n"


def _of_json(random: Random, whole: bytes) -> bytes:
    return json.dumps(value_of(random, json.loads(whole)), default=repr).encode()


def _of_toml(random: Random, whole: bytes) -> bytes:
    tree = value_of(random, tomllib.loads(whole.decode()))
    if not isinstance(tree, dict):
        return bytes_of(random, whole)
    lines = []
    plain = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    for table, values in [("", plain), *((k, v) for k, v in tree.items() if isinstance(v, dict))]:
        lines += [f"[{table}]"] if table else []
        lines += [f"{json.dumps(key)} = {json.dumps(value, default=repr)}" for key, value in values.items()]
    return "\n".join(lines).encode()


def _of_trace(random: Random, whole: bytes) -> bytes:
    unpacker = msgpack.Unpacker(use_list=True)
    unpacker.feed(whole)
    parts = list(unpacker)
    at = random.randrange(len(parts))
    parts[at] = value_of(random, parts[at])
    return b"".join(packed(one) for one in parts)


def _of_events(random: Random, whole: bytes) -> bytes:
    return gzip.compress(_of_trace(random, gzip.decompress(whole)), 1, mtime=0)


def _of_table(random: Random, whole: bytes) -> bytes:
    lines = whole.splitlines()
    at = random.randrange(len(lines))
    cells = lines[at].split(b"\t")
    cell = random.randrange(len(cells))
    cells[cell] = random.choice(
        (b"", b"x", b"-1", b"9" * 30, b"\xff", b"a=b", b"*", b"\0", b"nan", cells[-1])
    )
    lines[at] = b"\t".join(cells)
    return b"\n".join(lines) + b"\n"


def _of_search(random: Random, whole: bytes) -> bytes:
    """The head or a block changed, and the hash that belongs to it."""
    head, _, rest = whole[len(UNFINISHED) :].partition(b"\n")
    if random.random() < 0.7:
        head = json.dumps(value_of(random, json.loads(head)), default=repr).encode()
    else:
        (length,) = struct.unpack_from("<I", rest)
        words = zlib.compress(bytes_of(random, zlib.decompress(rest[4 : 4 + length])))
        rest = struct.pack("<I", len(words)) + words + rest[4 + length :]
    body = UNFINISHED + head + b"\n" + rest[:-32]
    return body + blake2b(body, digest_size=32).digest()


def _of_json(random: Random, whole: bytes) -> bytes:
    return json.dumps(value_of(random, json.loads(whole)), default=repr).encode()


def _of_words(random: Random, whole: bytes) -> bytes:
    """Words of another option, or doubled, or none, or odd ones."""
    words = whole.decode().split(" ")
    for _ in range(random.choice((1, 1, 2, 3))):
        at = random.randrange(len(words))
        match random.randrange(5):
            case 0:
                words[at] = ""
            case 1:
                words[at] *= 2
            case 2:
                words[at] = random.choice(words)
            case 3:
                cut = random.randrange(len(words[at]) + 1)
                words[at] = words[at][:cut] + random.choice(WORDS) + words[at][cut:]
            case _:
                words[at] = random.choice(WORDS)
    return " ".join(words).encode()


class Format:
    """A good file, what reads it, and how its values are mutated."""

    def __init__(
        self, suffix: str, good: bytes, arguments: tuple[tuple[str, ...], ...], values: Mutate
    ) -> None:
        self.suffix = suffix
        self.good = good
        self.arguments = arguments
        self.values = values

    def command(self, random: Random, file: Path) -> tuple[str, ...]:
        """What reads the mutant: its path, or in options one word of it."""
        words = file.read_text(errors="replace").split(" ")
        text = random.choice(words).replace("\0", "")
        return tuple(
            text if part == "{text}" else str(file) if part == "{}" else part
            for part in random.choice(self.arguments)
        )


def formats(folder: Path) -> dict[str, Format]:
    """Good files of every kind, small and made here."""
    made: dict[str, Format] = {}
    tell("check", *BROKEN, "--save", str(folder), "--json")
    witnesses = list(folder.glob("*.mpk"))
    if not witnesses:
        raise SystemExit("mutated_inputs: the check that makes a witness found none")
    quick = ("--seconds", "0.05")
    witness = witnesses[0].read_bytes()
    reads = (("replay", "{}"), ("replay", "{}", "--json"), ("shrink", "{}", *quick))
    made["witness"] = Format(".mpk", witness, reads, _of_witness)

    test = LitmusName(BROKEN[0])
    subject = Subject(
        test, msgpack.unpackb(witness)["policy"], "sc", machine_of(test, "immediate", "sc").cpus
    )
    referee = Referee(machine_of(test, subject.policy, "sc"), SharedSum)
    recording = folder / "good.mrec"
    with Writer(recording, subject.header()) as writer:
        for transition in parse_schedule(msgpack.unpackb(witness)["schedule"]):
            referee.step(transition)
            events: list[int] = []
            note(events, transition.kind, transition.cpu, transition.at, 1)
            writer.keep(events, sum_of(referee).total.value)
        writer.end(end_of(referee))
    assert recording.read_bytes().startswith(MAGIC)
    made["recording"] = Format(".mrec", recording.read_bytes(), reads, _of_recording)

    told = folder / "good.mev"
    header = EventHeader(title=subject.title(), cpus=referee.cpus, unit="steps")
    with written(told, header) as emit:
        tell_schedule(subject, parse_schedule(msgpack.unpackb(witness)["schedule"]), emit)
    outs = tuple(word for name in EXPORTS for word in (f"--{name}", str(folder / f"out.{name}")))
    made["events"] = Format(".mev", told.read_bytes(), (("export", "{}", *outs),), _of_events)

    trace = folder / "good.trace"
    with TraceWriter(trace, {"source": "made here"}) as runs:
        for page in range(40):
            runs.add(page % 7, page % 3, 1 + page % 5)
    made["trace"] = Format(".trace", trace.read_bytes(), (("trace", "info", "{}"),), _of_trace)

    sweep = (
        "sweep",
        "tiering",
        "--vary",
        "seed=1,2",
        "--set",
        "threads.accesses=300",
        "--cpus",
        "2",
        "--quiet",
    )
    out = folder / "good.jsonl"
    tell(*sweep, "--out", str(out))
    made["sweep"] = Format(".jsonl", out.read_bytes(), ((*sweep, "--out", "{}"),), _of_lines)

    root = Path(__file__).parent.parent / "scenarios"
    small = ("--set", "threads.accesses=200", "--cpus", "2", "--policy", "migrc", "--quiet")
    workload = (root / "workloads" / "tiering.toml").read_bytes()
    made["workload"] = Format(".toml", workload, (("run", "{}", "--engine", "timed", *small),), _of_toml)

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        exit_code(migrc, ("run", "tiering", "--engine", "timed", "--json", *small))
    reads = (("rerun", "{}", "--quiet"),)
    made["result"] = Format(".json", printed.getvalue().encode(), reads, _of_json)

    table = b"\n".join((root / "linux" / "recorded" / "6.12.tsv").read_bytes().splitlines()[:16]) + b"\n"
    reads = (("compare", "linux", "--kernel", "6.12", "--cases", "{}", "--quiet"),)
    made["cases"] = Format(".tsv", table, reads, _of_table)

    tally = folder / "good.tally"
    stressed = trials.target(Subject(LitmusName("shootdown"), "immediate", "x86"))
    pace = Pace(stressed.machine.cpus)
    pace.add([20] * stressed.machine.cpus, [(0, "r word", 2)])
    one = Tally(stressed, runs=2)
    with contextlib.closing(TallyFile(tally, [stressed], 0, 2)) as kept:
        kept.save(Outcome(tallies=[one], elapsed_s=1.0), [pace], True)
    trials.LiveSession = _no_ray  # type: ignore[misc,assignment]
    command = (
        "stress",
        "shootdown",
        "--policy",
        "immediate",
        "--arch",
        "x86",
        "--runs",
        "2",
        "--resume",
        "{}",
    )
    made["tally"] = Format(".tally", tally.read_bytes(), (command, (*command, "--json")), _of_json)

    half = folder / "good.half"
    command = (
        "check",
        "deferred-copy",
        "--policy",
        "migrc",
        "--arch",
        "x86",
        "--strategy",
        "exhaustive",
        "--resume",
    )
    tell(*command, str(half), "--states", "500")
    if half.exists():
        again = (*command, "{}", "--seconds", "0.2")
        made["search"] = Format(".half", half.read_bytes(), (again,), _of_search)

    good = (
        "0*3 1*2 0 i1 memory.fast_pages=64 cpus=2,4 seed=1 immediate migrc:v3 mistake:lock-order shootdown "
        "10.0.0.1:6379"
    )
    made["options"] = Format(".txt", good.encode(), OPTIONS, _of_words)
    return made


def _no_ray(*_: Any, **__: Any) -> Any:
    raise SessionError("no Ray here")


def tell(*arguments: str) -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = exit_code(migrc, arguments)
    return code, said.getvalue()


def _too_long(*_: Any) -> None:
    raise TimeoutError


def peak() -> int:
    """Most bytes of memory that were resident since it was last set back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def judge(arguments: tuple[str, ...]) -> str:
    """What is wrong with how it ends; empty if nothing is."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    signal.alarm(LONGEST_S)
    try:
        code, said = tell(*arguments)
    except BaseException as problem:
        return f"{type(problem).__name__}: {problem}"[:200]
    finally:
        signal.alarm(0)
    errors = [line for line in said.splitlines() if line.startswith("migrc: error")]
    if code not in CODES:
        return f"exit code {code}: {said.splitlines()[-1] if said else ''}"[:200]
    # What is wrong with a recording after its last good block is said in the report.
    if "Traceback" in said or (
        len(errors) != (code >= 2) and not (code == 2 and arguments[1].endswith(".mrec"))
    ):
        return f"exit code 2 with {len(errors)} lines of error"
    if peak() > LARGEST:
        return "more than 1 GiB"
    return ""


def main() -> int:
    """Try them; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description="Mutated files, and how verbs end.")
    parser.add_argument("count", type=int, help="of every format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", help="only this one; repeatable")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    options = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_long)
    failed = 0
    with tempfile.TemporaryDirectory(prefix="migrc-mutated-") as name:
        folder = Path(name)
        os.chdir(folder)
        made = formats(folder)
        for kind, one in made.items():
            if options.format and kind not in options.format:
                continue
            answers: Counter[str] = Counter()
            began = time.monotonic()
            for number in range(options.first, options.first + options.count):
                random = Random(f"{options.seed} {kind} {number}")
                mutate = one.values if random.random() < 0.7 else bytes_of
                file = folder / f"mutant{one.suffix}"
                file.write_bytes(mutate(random, one.good))
                arguments = one.command(random, file)
                wrong = judge(arguments)
                answers[wrong or "as documented"] += 1
                if wrong and answers[wrong] == 1:
                    failed += 1
                    print(f"{kind} {number}: {wrong}: migrc {' '.join(arguments)}", flush=True)
                file.unlink(missing_ok=True)
            elapsed_s = time.monotonic() - began
            good = answers.pop("as documented", 0)
            count = f"{options.count:,} mutants in {elapsed_s:.0f} s"
            print(f"{kind}: {count}, {good:,} as documented; {dict(answers)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
