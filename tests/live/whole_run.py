"""A driver that runs a session from begin to end: contention for a lock, then shootdowns."""

from __future__ import annotations

import sys

from actors.session import LiveSession, register
from emulator.hardware.operations import AtomicAdd, Load, Lock, Store, Unlock, WaitFor
from tests.live import lab
from tests.live.lab import Lab


async def body(lab: Lab) -> None:
    for _ in range(20):
        await Lock("lock")
        await Store("count", await Load("count") + 1)
        await Unlock("lock")
    await lab.shoot([cpu for cpu in range(8) if cpu != lab.number][:3])
    await AtomicAdd("over", 1)
    await WaitFor("over", 8)


def main() -> None:
    register(lab)
    with LiveSession(transport="tcp" if sys.argv[1:] == ["tcp"] else None) as session:
        result = session.run(lab.LabMachine([body] * 8))
        print(result.memory["words"]["count"], len(result.delivery), len(result.violations))


if __name__ == "__main__":
    main()
