"""A driver to be interrupted: says where it is, then runs CPUs that never end."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent.parent), str(Path(__file__).parent)]

import lab  # noqa: E402
from lab import Lab  # noqa: E402

from actors.session import LiveSession, register  # noqa: E402
from emulator.hardware.operations import Cycle, Load, WaitFor  # noqa: E402


async def busy(lab: Lab) -> None:
    while True:
        await Load("word")
        await Cycle()


async def deaf(lab: Lab) -> None:
    await WaitFor("never", 1)


async def stubborn(lab: Lab) -> None:
    await Load("word")
    while True:
        pass


def main() -> None:
    register(lab)
    print("starting", flush=True)
    with LiveSession() as session:
        print(f"started {session.directory}", flush=True)
        session.run(lab.LabMachine([busy, deaf, stubborn]), lambda report: print("running", flush=True))


if __name__ == "__main__":
    main()
