"""What `madv-free-refault` and `reclaim-refill` say of mainline, asked of a real kernel under QEMU.

`python benchmarks/refault.py VERSION [PACKAGES]`: Debian's kernel of that version (6.12, 6.1), by apt or out
of a folder, as for `migrc compare linux --record`. A minute and a half; docs/verdicts.md has what came out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from scenarios.linux.recorder.booted import APPEND, QEMU  # noqa: E402
from scenarios.linux.recorder.initial_files import cpio, ext4_image, kernel_package, output, unpacked  # noqa: E402


def main(version: str, packages: Path | None) -> None:
    """Boots the guest; prints what it said."""
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        kernel = unpacked(kernel_package(version, packages, scratch), scratch)
        init, console = scratch / "init", scratch / "console"
        output(["gcc", "-O1", "-static-pie", "-pthread", "-o", str(init), str(HERE / "refault.c")])
        files = (
            ("init", 0o100755, init.read_bytes()),
            ("brd.ko", 0o100644, kernel.brd),
            ("ext4.image", 0o100644, ext4_image(scratch)),
            ("dev", 0o040755, b""),
        )
        archive = scratch / "initial.cpio"
        archive.write_bytes(cpio(files))
        machine = ["-accel", "tcg,thread=single", "-cpu", "max", "-smp", "3", "-m", "512M", "-nodefaults"]
        lines = ["-display", "none", "-no-reboot", "-serial", f"file:{console}"]
        boot = ["-kernel", str(kernel.image), "-initrd", str(archive), "-append", APPEND]
        subprocess.run([QEMU, *machine, *lines, *boot], stdin=subprocess.DEVNULL, check=True)
        print(console.read_text(errors="replace"))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) if len(sys.argv) > 2 else None)
