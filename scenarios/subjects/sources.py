"""What the programs of a subject are made of, as one digest: files that are gone on with hold it.

Another version of the code is another search, or another tally, though all names are the same.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import emulator
import scenarios
from scenarios.subjects.mmus import mmu_modules_to_send
from scenarios.subjects.policies import modules_to_send
from scenarios.subjects.programs import LitmusName, modules_of
from scenarios.subjects.subject import Subject


def digest_of_sources(subject: Subject) -> str:
    """BLAKE2b of our files and a user's own. OSError if one cannot be read."""
    ours = [Path(emulator.__path__[0])]
    ours += [Path(scenarios.__path__[0], room) for room in ("litmus", "history", "mistakes")]
    files = [file for folder in ours for file in sorted(folder.rglob("*.py"))]
    own = [*(modules_of(subject.what) if isinstance(subject.what, LitmusName) else ())]
    own += modules_to_send(subject.policy) + mmu_modules_to_send(subject.mmu)
    files += sorted({Path(module.__file__) for module in own if module.__file__ is not None})
    digest = blake2b(digest_size=16)
    for file in files:
        content = file.read_bytes()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
