"""How fast `migrc trace import lackey` reads, and in how much memory, beside a plain count of the same lines.

Lackey-like text is made on the fly by a second process and comes through a pipe: a few loops over code, data
that is mostly local, partly random, now and then a modify and an access across a page boundary.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scenarios.traces.format import TraceWriter, read_trace
from scenarios.traces.lackey import DEFAULT_WINDOW, import_lackey, lackey_header

CHUNK_LINES = 20_000


def produce(lines: int, repeats: int, seed: int) -> None:
    """Write `lines` lines to standard output; each chunk of CHUNK_LINES is written `repeats` times."""
    rng = random.Random(seed)
    loops = [rng.randrange(0x400000, 0x4800000) & ~0xF for _ in range(200)]
    hot = [rng.randrange(0x4A00000, 0x5A00000) & ~0xFFF for _ in range(64)]
    out = sys.stdout.buffer
    while lines > 0:
        text: list[str] = []
        while len(text) < CHUNK_LINES:
            base, length, turns = rng.choice(loops), rng.randrange(4, 40), rng.randrange(1, 20)
            for _ in range(turns):
                for step in range(length):
                    text.append(f"I  {base + 4 * step:08x},4\n")
                    dice = rng.random()
                    if dice < 0.3:
                        text.append(f" L {rng.choice(hot) + rng.randrange(512) * 8:08x},8\n")
                    elif dice < 0.4:
                        text.append(f" S {0x1FFF000000 + rng.randrange(512) * 8:08x},8\n")
                    elif dice < 0.42:
                        text.append(f" M {rng.randrange(0x6000000, 0x16000000):08x},4\n")
        chunk = "".join(text[:CHUNK_LINES]).encode()
        for _ in range(repeats):
            if lines < CHUNK_LINES:
                chunk = b"".join(chunk.splitlines(keepends=True)[:lines])
            out.write(chunk)
            lines -= CHUNK_LINES
            if lines <= 0:
                return


def main() -> None:
    """Time the import of the options' lines, then print it beside the time of merely splitting them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000_000)
    parser.add_argument("--window", type=int, default=DEFAULT_WINDOW)
    parser.add_argument("--repeats", type=int, default=50, help="times that each chunk of text is sent")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--produce", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        produce(options.lines, options.repeats, options.seed)
        return

    counted, count_seconds, read = 0, 0.0, 0
    with _producer(options) as source:
        assert source.stdout is not None
        while chunk := source.stdout.read(1 << 20):
            started = time.perf_counter()
            counted += len(chunk.split(b"\n")) - 1
            count_seconds += time.perf_counter() - started
            read += len(chunk)
    with tempfile.TemporaryDirectory() as folder, _producer(options) as source:
        assert source.stdout is not None
        target = os.path.join(folder, "benchmark.trace")
        started, cpu = time.perf_counter(), time.process_time()
        with TraceWriter(target, lackey_header("benchmark", options.window)) as writer:
            found = import_lackey(source.stdout, writer, window=options.window)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        made = read_trace(target)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{found.lines:,} lines, {read / 1e6:,.0f} MB of text, window {options.window}")
    print(f"trace        {made.size:,} bytes, {made.totals.runs:,} runs, {made.totals.pages:,} pages")
    print(f"import       {found.lines / seconds:,.0f} lines/s through the pipe")
    print(f"             {found.lines / cpu:,.0f} lines/s of its own processor time")
    ratio = cpu / count_seconds
    print(f"split only   {counted / count_seconds:,.0f} lines/s; the import costs {ratio:.1f} times as much")
    print(f"peak RSS     {peak:,.0f} MiB")


def _producer(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    arguments = [f"--lines={options.lines}", f"--repeats={options.repeats}", f"--seed={options.seed}"]
    return subprocess.Popen([sys.executable, __file__, "--produce", *arguments], stdout=subprocess.PIPE)


if __name__ == "__main__":
    main()
