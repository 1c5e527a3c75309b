"""What the guest is booted with: a kernel out of its package, and a file system around the program in C."""

from __future__ import annotations

import lzma
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from scenarios.usage import UsageProblem

_SOURCES: Final = Path(__file__).parent
_EXT4_MIB: Final = 16


class Kernel(NamedTuple):
    """A kernel out of a package: its release, its image, and the module for block devices in memory."""

    release: str
    image: Path
    brd: bytes


def kernel_package(version: str, packages: Path | None, scratch: Path) -> Path:
    """The file of `linux-image-VERSION...-cloud-amd64`: the newest in the folder, or the newest that apt has.

    Raises UsageProblem if there is none.
    """
    if packages is None:
        pattern = rf"^linux-image-{re.escape(version)}\.[0-9].*-cloud-amd64$"
        listed = output(["apt-cache", "search", "--names-only", pattern]).split("\n")
        names = sorted((line.split(" ")[0] for line in listed if line), key=_numbers)
        if not names:
            raise UsageProblem(
                f"--record: apt has no linux-image-{version}.*-cloud-amd64; --packages DIR with one"
            )
        output(["apt-get", "download", names[-1]], scratch)
        packages = scratch
    found = sorted(
        packages.glob(f"linux-image-{version}.*-cloud-amd64*.deb"), key=lambda path: _numbers(path.name)
    )
    if not found:
        raise UsageProblem(f"--packages {packages}: no linux-image-{version}.*-cloud-amd64*.deb")
    return found[-1]


def unpacked(package: Path, scratch: Path) -> Kernel:
    """What is needed out of a kernel's package."""
    folder = scratch / "kernel"
    output(["dpkg-deb", "-x", str(package), str(folder)])
    image = next((folder / "boot").glob("vmlinuz-*"), None)
    module = next(folder.rglob("brd.ko*"), None)
    if image is None or module is None:
        raise UsageProblem(f"{package}: no vmlinuz or no brd.ko in it; a linux-image package of Debian")
    content = module.read_bytes()
    brd = lzma.decompress(content) if module.suffix == ".xz" else content
    return Kernel(image.name.removeprefix("vmlinuz-"), image, brd)


def initial_file_system(kernel: Kernel, cases: Sequence[tuple[str, str]], scratch: Path) -> Path:
    """An archive for `-initrd`: the guest's program, the cases that it runs, and an empty ext4."""
    init = scratch / "init"
    sources = [str(_SOURCES / name) for name in ("guest.c", "operations.c", "areas.c", "basics.c")]
    output(["gcc", "-O1", "-static-pie", "-pthread", "-o", str(init), *sources])
    text = "".join(f"{operation} {configuration}\n" for operation, configuration in cases)
    files = (
        ("init", 0o100755, init.read_bytes()),
        ("cases", 0o100644, text.encode()),
        ("brd.ko", 0o100644, kernel.brd),
        ("ext4.image", 0o100644, ext4_image(scratch)),
        ("dev", 0o040755, b""),
    )
    archive = scratch / "initial.cpio"
    archive.write_bytes(cpio(files))
    return archive


def ext4_image(scratch: Path) -> bytes:
    """An empty ext4."""
    image = scratch / "ext4.image"
    with open(image, "wb") as file:
        file.truncate(_EXT4_MIB << 20)
    output(["mkfs.ext4", "-q", "-F", "-b", "4096", str(image)])
    return image.read_bytes()


def cpio(files: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive of files (name, mode, content), in the format that the kernel unpacks.

    Documentation/driver-api/early-userspace/buffer-format.rst has it.
    """
    parts = []
    for number, (name, mode, content) in enumerate((*files, ("TRAILER!!!", 0, b"")), 1):
        label = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(label), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + label
        parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(parts)


def output(command: Sequence[str], folder: Path | None = None) -> str:
    """Run a program that the recorder needs; what it said. Raises UsageProblem if it is missing or fails."""
    if shutil.which(command[0]) is None:
        raise UsageProblem(f"--record: no {command[0]} here; docs/linux.md says what to install")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no word").split("\n")[-1]
        raise UsageProblem(f"--record: {command[0]} failed: {last[:200]}")
    return done.stdout


def _numbers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)]
