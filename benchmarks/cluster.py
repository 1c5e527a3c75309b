"""A cluster on one machine: hosts of namespaces, a network that is a thread, Ray, and what may happen.

    sudo python benchmarks/cluster.py [--hosts 3] [--delay-ms 20] [--loss 0.01] [CASE ...]

Every host is a network, mount, PID and host-name namespace with a TUN device. This process carries the
packets between them: it delays, loses and cuts as it is told, and sees everything. Needs root, iproute2,
util-linux and /dev/net/tun. Prints a line for each case; exit code 1 if one did not end as it should.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgpack

ROOT = Path(__file__).resolve().parent.parent
HANG_S = 300
PORT = 6379
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
RUN = ("run", "tiering", "--cpus", "3", "--set", "threads.accesses=3000", "--json")
STRESS = ("stress", "shootdown", "--policy", "immediate", "--arch", "x86", "--runs", "20", "--json")
CHECK = ("check", "shootdown", "--policy", "migrc", "--arch", "x86", "--strategy", "exhaustive")
SWEEP = (
    "sweep",
    "tiering",
    "--vary",
    "seed=1,2,3",
    "--set",
    "threads.accesses=2000",
    "--workers",
    "3",
    "--json",
)


def address(number: int) -> str:
    """Of host `number`."""
    return f"10.77.0.{number + 1}"


class Network(threading.Thread):
    """Carries packets between hosts: `delay_s` one way, `loss` (0 to 1), hosts in `cut` reach nobody."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.devices: dict[str, int] = {}
        self.delay_s = 0.0
        self.loss = 0.0
        self.cut: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.seen: bytearray | None = None
        self._random = Random(0)
        self._over = threading.Event()

    def run(self) -> None:
        due: list[tuple[float, int, str, bytes]] = []
        names = {device: name for name, device in self.devices.items()}
        number = 0
        while not self._over.is_set():
            wait = min(0.1, max(0.0, due[0][0] - time.monotonic())) if due else 0.1
            for device in select.select(list(names), [], [], wait)[0]:
                packet = os.read(device, 70_000)
                if packet[0] >> 4 != 4:
                    continue
                to = socket.inet_ntoa(packet[16:20])
                self.counts["packets"] += 1
                if {names[device], to} & self.cut:
                    self.counts["cut"] += 1
                elif self._random.random() < self.loss:
                    self.counts["lost"] += 1
                elif to in self.devices:
                    if self.seen is not None:
                        self.seen += packet
                    number += 1
                    heapq.heappush(due, (time.monotonic() + self.delay_s, number, to, packet))
            while due and due[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(due)
                with contextlib.suppress(OSError):
                    os.write(self.devices[to], packet)

    def stop(self) -> None:
        self._over.set()
        self.join()


class Host:
    """Namespaces with a first process; all of it ends with that one."""

    def __init__(self, number: int, folder: Path, network: Network, source: Path = ROOT) -> None:
        self.address = address(number)
        self.source = source
        self.folder = folder / f"h{number}"
        self.folder.mkdir()
        begin = "mount -t tmpfs none /dev/shm && hostname $0 && echo there && exec sleep infinity"
        self.init = subprocess.Popen(
            ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", begin, f"host{number}"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.init.stdout is not None and self.init.stdout.readline() == "there\n"
        children = Path(f"/proc/{self.init.pid}/task/{self.init.pid}/children").read_text().split()
        self.process = int(children[0])
        network.devices[self.address] = self._device()

    def _device(self) -> int:
        """A TUN device in the host's network, held by this process."""
        libc = ctypes.CDLL(None, use_errno=True)
        made: list[int] = []

        def make() -> None:
            # A thread has a network namespace of its own.
            theirs = os.open(f"/proc/{self.process}/ns/net", os.O_RDONLY)
            if libc.setns(theirs, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(theirs)
            device = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun0", IFF_TUN | IFF_NO_PI))
            made.append(device)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise SystemExit("cluster: no TUN device: root and /dev/net/tun are needed")
        for command in (
            "link set lo up",
            f"addr add {self.address}/24 dev tun0",
            "link set tun0 up mtu 1400",
        ):
            subprocess.run([*self.inside(), "ip", *command.split()], check=True)
        return made[0]

    def inside(self) -> list[str]:
        return ["nsenter", "-t", str(self.process), "--net", "--mount", "--uts", "--pid"]

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A Python program on this host."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.source),
            "TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        }
        whole = [*self.inside(), f"--wd={self.folder}", sys.executable, "-m", *command]
        return subprocess.Popen(
            whole, text=True, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=environment, **options,
        )  # fmt: skip

    def ray(self, head: bool) -> None:
        where = ["--head", f"--port={PORT}"] if head else [f"--address={address(0)}:{PORT}"]
        where += ["--include-dashboard=false"] if head else []
        started = self.start(
            "ray.scripts.scripts", "start", *where, f"--node-ip-address={self.address}",
            f"--temp-dir={self.folder}/r", "--num-cpus=1",
            "--object-store-memory=80000000", "--disable-usage-stats",
        )  # fmt: skip
        output, errors = started.communicate(timeout=HANG_S)
        if started.returncode:
            raise SystemExit(f"cluster: Ray does not start on {self.address}: {output}{errors}")

    def migrc(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start("scenarios", *arguments, "--address", f"{address(0)}:{PORT}")

    def end(self) -> None:
        self.init.kill()
        self.init.wait()


class Cluster:
    """Hosts, the driver's first, and what is between them."""

    def __init__(self, hosts: list[Host], network: Network, cut_s: float) -> None:
        self.hosts, self.network, self.cut_s = hosts, network, cut_s

    def told(
        self, *arguments: str, during: Callable[[subprocess.Popen[str]], None] | None = None
    ) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        process = self.hosts[0].migrc(*arguments)
        try:
            if during is not None:
                during(process)
            output, errors = process.communicate(timeout=HANG_S)
        finally:
            process.kill()
        return process.returncode, output, errors


def good(told: tuple[int, str, str], code: int = 0) -> str:
    """Standard output of what ended well."""
    if told[0] != code:
        raise AssertionError(f"exit code {told[0]}: {told[2][-500:]}")
    return told[1]


def plain(cluster: Cluster) -> str:
    """run, stress, check and sweep across all hosts, each way of placement."""
    said = []
    for how in ("spread", "pack", "sockets"):
        document = json.loads(good(cluster.told(*RUN, "--placement", how)))
        run = document["runs"][0]
        assert run["accesses"] == 9000 and not run["violations"], run
        nodes = run["network_ns"]
        assert len(nodes) == {"pack": 1}.get(how, len(cluster.hosts)), nodes
        said.append(f"{how}: {len(nodes)} nodes, {max(nodes.values()) / 1e6:.1f} ms")
    assert json.loads(good(cluster.told(*STRESS)))["violations"] == 0
    good(cluster.told(*CHECK, "--workers", "3"))
    assert len(json.loads(good(cluster.told(*SWEEP)))["points"]) == 6
    return "; ".join(said)


def weather(cluster: Cluster, delay_s: float, loss: float) -> str:
    """Delay and loss: slower, and nothing else."""
    network = cluster.network
    before = network.counts["lost"]
    network.delay_s, network.loss = delay_s, loss
    try:
        document = json.loads(good(cluster.told(*RUN, "--policy", "immediate")))
    finally:
        network.delay_s = network.loss = 0.0
    (run,) = document["runs"]
    assert not run["violations"] and max(run["network_ns"].values()) >= 2e9 * delay_s
    p50 = run["ipi_latency_ns"]["round_trip"]["p50"] or 0
    return f"{network.counts['lost'] - before} packets lost; a shootdown takes {p50 / 1e6:.0f} ms"


def _under_way(cluster: Cluster, event: Callable[[], None]) -> Callable[[subprocess.Popen[str]], None]:
    """`event` happens when an access has been made."""

    def wait(process: subprocess.Popen[str]) -> None:
        half = cluster.hosts[0].folder / "half"
        deadline = time.monotonic() + HANG_S
        while not half.exists() or not any(one["runs"] for one in json.loads(half.read_text())["tallies"]):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"no run was made: {process.communicate()}")
            time.sleep(0.1)
        event()

    return wait


def _ended(cluster: Cluster, event: Callable[[], None], name: str) -> str:
    (cluster.hosts[0].folder / "half").unlink(missing_ok=True)
    began: list[float] = []

    def now() -> None:
        began.append(time.monotonic())
        event()

    # Ray takes half a minute to find out; what is left of the cluster goes on then.
    long = (*STRESS[:-3], "--seconds", "100", "--resume", "half", "--json")
    code, output, errors = cluster.told(*long, during=_under_way(cluster, now))
    assert code == 3, (code, errors[-500:])
    document = json.loads(output)
    assert document["violations"] == 0 and document["runs"] > 0 and "lost" in errors, (document, errors)
    took = time.monotonic() - began[0]
    return f"{name}: exit code 3 after {took:.0f} s: {errors.splitlines()[-1][:110]}"


def cut(cluster: Cluster) -> str:
    """A link that is down for a few seconds is survived; one that stays down is a lost run, no violation."""
    # CPU 1 of two is there.
    network, second = cluster.network, cluster.hosts[1].address

    def short() -> None:
        network.cut.add(second)
        time.sleep(cluster.cut_s)
        network.cut.clear()

    (cluster.hosts[0].folder / "half").unlink(missing_ok=True)
    survived = (*STRESS[:-3], "--runs", "60", "--resume", "half", "--json")
    assert json.loads(good(cluster.told(*survived, during=_under_way(cluster, short))))["violations"] == 0
    try:
        return f"{cluster.cut_s:g} s: survived; " + _ended(
            cluster, lambda: network.cut.add(second), "for good"
        )
    finally:
        network.cut.clear()


def dead(cluster: Cluster) -> str:
    """A host goes: the run is lost, what is through is told."""
    return _ended(cluster, cluster.hosts[1].end, "a node is gone")


SECRET_TEST = """
from emulator.hardware.operations import Load, Store
from emulator.machine.litmus import Litmus

FACTOR = 0x5EC2E7


def empty(setup):
    pass


async def writes(cpu):
    for _ in range(50):
        await Store("word", FACTOR * 0xC0FFEE0011)


async def reads(cpu):
    for _ in range(50):
        await Load("word")


SECRET = Litmus("secret", "?", (writes, reads, writes), empty, (), drain=False)
"""
SECRET = 0x5EC2E7 * 0xC0FFEE0011


def secrets(cluster: Cluster) -> str:
    """A number that programs only make when they run is nowhere in what travels between the hosts."""
    network = cluster.network
    (cluster.hosts[0].folder / "secret.py").write_text(SECRET_TEST)
    wanted = msgpack.packb(SECRET)[1:]
    network.seen = bytearray()
    try:
        good(cluster.told("stress", "secret.py", "--policy", "immediate", "--arch", "x86", "--runs", "5"))
        seen = bytes(network.seen)
    finally:
        network.seen = None
    found = seen.count(wanted) + seen.count(wanted[::-1])
    handshakes, messages = seen.count(b"CURVE"), seen.count(b"\x07MESSAGE")
    assert handshakes and messages and not found, (found, handshakes, messages)
    return f"{len(seen):,} bytes: {handshakes} CURVE handshakes, {messages:,} messages, the number in none"


ATTEMPTS = """
import socket, sys, zmq

host, tried = sys.argv[1], 0
context = zmq.Context()
for port in map(int, sys.argv[2:]):
    try:
        with socket.create_connection((host, port), 5) as raw:
            raw.sendall(b"\\xff" * 500)
    except OSError:
        continue
    for key in (None, zmq.curve_keypair()):
        peer = context.socket(zmq.PUSH)
        peer.linger = 200
        if key:
            peer.curve_serverkey, (peer.curve_publickey, peer.curve_secretkey) = key[0], key
        peer.connect(f"tcp://{host}:{port}")
        peer.send(b"forged")
        peer.close()
    tried += 3
print(tried)
"""


def stranger(cluster: Cluster) -> str:
    """Another host connects to every port of a run: with garbage, without a key, with one of its own."""
    tried: list[int] = []
    here, there = cluster.hosts[0], cluster.hosts[-1]
    (there.folder / "stranger.py").write_text(ATTEMPTS)

    def attack() -> None:
        listing = subprocess.run([*here.inside(), "ss", "-Hltn"], capture_output=True, text=True, check=True)
        lines = [line.split()[3] for line in listing.stdout.splitlines()]
        ports = {
            place.rpartition(":")[2] for place in lines if not place.startswith(("127.", "[::ffff:127."))
        }
        done = there.start("stranger", here.address, *sorted(ports))
        output, errors = done.communicate(timeout=HANG_S)
        assert done.returncode == 0, errors
        tried.append(int(output))

    def attacks() -> None:
        # Every run opens inboxes anew.
        for _ in range(3):
            attack()

    (here.folder / "half").unlink(missing_ok=True)
    survived = (*STRESS[:-3], "--runs", "60", "--resume", "half", "--json")
    document = json.loads(good(cluster.told(*survived, during=_under_way(cluster, attacks))))
    assert (document["runs"], document["violations"]) == (60, 0), document
    return f"{sum(tried)} attempts at {sum(tried) // 3} ports, run unharmed"


def version(cluster: Cluster) -> str:
    """One host has another migrc: refused, by name."""
    code, _, errors = cluster.told(*RUN)
    assert code == 3 and "has another migrc" in errors and cluster.hosts[-1].address in errors, (code, errors)
    return errors.strip()[:140]


@contextlib.contextmanager
def made(count: int, cut_s: float, other_version: bool = False) -> Iterator[Cluster]:
    """A cluster, gone afterwards; on its last host a migrc with one more line if so wished."""
    network = Network()
    hosts: list[Host] = []
    with tempfile.TemporaryDirectory(prefix="mc", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        source = ROOT
        try:
            for number in range(count):
                if other_version and number == count - 1:
                    source = folder / "other"
                    for package in ("emulator", "actors", "scenarios"):
                        shutil.copytree(ROOT / package, source / package)
                    with (source / "actors" / "wire.py").open("a") as file:
                        file.write("# another version\n")
                hosts.append(Host(number, folder, network, source))
            network.start()
            for number, host in enumerate(hosts):
                host.ray(head=number == 0)
            yield Cluster(hosts, network, cut_s)
        finally:
            for host in hosts:
                host.end()
            if network.is_alive():
                network.stop()


def main() -> int:
    """Try them; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description="A cluster of namespaces, and what may happen to it.")
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="plain weather cut secrets stranger dead version"
    )
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    parser.add_argument("--loss", type=float, default=0.01)
    parser.add_argument("--cut-s", type=float, default=5.0)
    options = parser.parse_args()
    cases: dict[str, Callable[[Cluster], str]] = {
        "plain": plain,
        "weather": lambda cluster: weather(cluster, options.delay_ms / 1000, options.loss),
        "secrets": secrets,
        "stranger": stranger,
        "cut": cut,
        "dead": dead,
        "version": version,
    }
    wanted = options.cases or list(cases)
    if unknown := set(wanted) - set(cases):
        parser.error(f"no case {', '.join(sorted(unknown))}; known: {', '.join(cases)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = 0
    # Ray never takes a host back that it has given up: those that lose one begin anew.
    alone = ("cut", "dead", "version")
    together = [name for name in wanted if name not in alone]
    for some in (together, *([name] for name in wanted if name in alone)):
        if not some:
            continue
        with made(options.hosts, options.cut_s, some == ["version"]) as cluster:
            for name in some:
                began = time.monotonic()
                try:
                    said, mark = cases[name](cluster), "ok"
                except (AssertionError, subprocess.TimeoutExpired) as problem:
                    said, mark, failed = str(problem), "FAILED", 1
                print(f"{mark:6} {name:9} {time.monotonic() - began:5.0f} s  {said}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
