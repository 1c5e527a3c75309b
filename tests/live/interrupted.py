"""A driver to be interrupted: says where it is, then runs CPUs that never end."""

from __future__ import annotations

from actors.session import LiveSession, register
from emulator.hardware.operations import Cycle, Load, WaitFor
from tests.live import lab
from tests.live.lab import Lab


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
