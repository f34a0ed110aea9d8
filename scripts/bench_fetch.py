"""What fetching costs: one torrent from one fast seed, checked, written, and compared at the end.

The seed is reference.c in batches of 64 blocks with TCP_NOTSENT_LOWAT, which keeps the work of
sending on its own core: without it the leecher's acknowledgements do half of it, and pay. The
leecher has the other core.

Ours and the reference go to the seed by themselves and end when they have all: their CPU seconds
are those from start to end. The seed goes to the others, since some refuse to dial 127.0.0.1; their
CPU seconds begin when they answer handshakes, so that their starts are not held against them, and
end a second after they said on the wire that they have everything. Time ends when a program says
that it is done: ours by its event `complete`, the reference by ending, the others on the wire.
"""

import os
import shutil
import statistics
import subprocess
import time

from bench_load import MIB, has_all, warm
from bench_peers import LOAD_CORE, OTHERS, SCRIPTS, Peer, Perennial, Reference
from bench_tables import Noise, ratio, segments, spread, table

GIB = 1 << 30
ETHERNET = 1448
SEED_BLOCKS, SEED_LOWAT = 64, 16 * 1024
LIMIT_S, SLOW_LIMIT_S = 60, 240
SETTLE_S = 1

CPU_OF_REFERENCE, CPU_OF_BEST_OTHER = 1.4, 0.8  # aim at 1.2 of the reference
WALL_OF_BEST_OTHER, PEAK_MIB = 1.0, 8


# -- who fetches, and from whom ---------------------------------------------------------------

class Seed(Reference):
    """One fast seed; on the load's core."""

    def __init__(self, work, port):
        super().__init__(work, port, "batch", SEED_BLOCKS, SEED_LOWAT)
        self.mss = self.leecher = 0

    def argv(self):
        return [*super().argv(), str(self.mss), str(self.leecher)]

    def start(self):
        super().start((LOAD_CORE,))


class PerennialGet(Perennial):
    """Ours, as one would fetch a single thing with it."""

    first_run, one_shot = False, True
    seed = ""

    def argv(self):
        return [self.program, "get", str(self.torrent.path), "-o", str(self.folder), "--exit",
                "--peer", self.seed, "--json", "--listen", "127.0.0.1:0",
                "--state", str(self.dir / "state"), "--board", self.board]


class ReferenceFetch(Peer):
    """reference_fetch.c: the least that fetching can cost."""

    name, command, one_shot = "reference", "gcc", True
    seed = ""

    def configure(self):
        built = subprocess.run(
            ["gcc", "-O2", "-o", self.dir / "reference", SCRIPTS / "reference_fetch.c", "-lcrypto"],
            capture_output=True, text=True)
        if built.returncode:
            raise RuntimeError(f"needs libssl-dev, or did not build: {built.stderr.strip()[-300:]}")

    def argv(self):
        t = self.torrent
        return [str(self.dir / "reference"), str(t.path), t.info_hash.hex(), str(t.size),
                str(t.piece_bytes), str(self.folder / t.data.name), self.seed.rpartition(":")[2]]


# -- one fetch --------------------------------------------------------------------------------

class Fetch:
    """One peer fetching from the seed, watched."""

    def __init__(self, peer, seed, torrent, into, mss):
        self.peer, self.seed, self.torrent, self.into = peer, seed, torrent, into
        self.limit = SLOW_LIMIT_S if peer.slow else LIMIT_S
        self.peak = 0
        seed.mss, seed.leecher = mss or 0, 0 if peer.one_shot else peer.port

    def run(self):
        peer, seed = self.peer, self.seed
        peer.prepare_fetch(self.torrent, self.into)
        warm(self.torrent)
        try:
            before = self.begin()
            noise, began, own = Noise(), time.monotonic(), time.process_time()
            said = self.wait_end() if peer.one_shot else self.wait_all()
            wall = time.monotonic() - began
            if not peer.one_shot:
                time.sleep(SETTLE_S)
                self.peak = peer.memory("VmHWM")
            cpu, seed_cpu = peer.cpu() - before, seed.cpu()
            other = noise.cores(cpu + seed_cpu + time.process_time() - own)
            written = peer.bytes_written()
            if peer.one_shot and peer.process.wait():
                raise RuntimeError(peer.last_words())
        finally:
            peer.stop()
            seed.stop()
        gib = self.torrent.size / GIB
        return {"cpu": cpu / gib, "wall": said - began, "until_end": wall,
                "peak_mib": self.peak / MIB, "written_mib": written / MIB,
                "seed_cpu": seed_cpu / gib, "same": self.same(), "other_load": other}

    def begin(self):
        """Both are up, and on their way to each other; returns the CPU seconds before that."""
        peer, seed = self.peer, self.seed
        if peer.one_shot:
            peer.seed = f"127.0.0.1:{seed.port}"
            seed.start()
            seed.wait_answering()
            touch_memory(self.into, self.torrent.size)
            peer.start()
            return 0
        peer.start()
        if peer.first_run:
            peer.hand_over()
        peer.wait_answering()
        touch_memory(self.into, self.torrent.size)
        before = peer.cpu()
        seed.start()
        return before

    def wait_end(self):
        """Until the process has ended, which is not waited for yet: its figures are still there.

        Returns when it said that it is complete, or ended.
        """
        peer, said, end = self.peer, None, time.monotonic() + self.limit
        while not os.waitid(os.P_PID, peer.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            self.peak = max(self.peak, peer.memory("VmHWM"))
            if not said and isinstance(peer, Perennial) and peer.said("complete"):
                said = time.monotonic()
            self.in_time(end)
            time.sleep(0.01)
        return said or time.monotonic()

    def wait_all(self):
        """Until the peer tells somebody that it has everything."""
        end, i = time.monotonic() + self.limit, 0
        while not has_all(self.peer.address, self.torrent, 40000 + i):
            if self.peer.process.poll() is not None:
                raise RuntimeError(self.peer.last_words())
            self.in_time(end)
            i += 1
            time.sleep(0.01)
        return time.monotonic()

    def in_time(self, end):
        if time.monotonic() > end:
            raise TimeoutError(f"it has not fetched {self.torrent.size // MIB} MiB in "
                               f"{self.limit} s")

    def same(self):
        """Whether what it fetched is the content, byte for byte."""
        found = self.into / self.torrent.data.name
        if not found.is_file() or found.stat().st_size != self.torrent.size:
            return False
        with open(self.torrent.data, "rb") as ours, open(found, "rb") as theirs:
            return all(a == theirs.read(MIB) for a in iter(lambda: ours.read(MIB), b""))


def touch_memory(folder, size):
    """Makes the system have as many pages at hand as the content will take.

    A virtual machine may have given free memory back to its host, and then the first to touch it
    pays, half a second for each GiB.
    """
    path, zeros = folder / "touch", bytes(MIB)
    with open(path, "wb", buffering=0) as f:
        for _ in range(0, size, MIB):
            f.write(zeros)
    path.unlink()


# -- all of them ------------------------------------------------------------------------------

def measure(bench, port):
    """The mode `fetch` of a `Bench`."""
    args, work = bench.args, bench.work / "fetch"
    into = (args.into or work) / "fetched"
    ours = [PerennialGet(work, port, args.program, "small")] if "perennial" in bench.names else []
    reference = [ReferenceFetch(work, port)] if "reference" in bench.names else []
    others = [OTHERS[n](work, port) for n in bench.names
              if n in OTHERS and not (args.quick and OTHERS[n].slow)]
    seed = Seed(work, port + 10)
    seed.prepare(bench.torrent)
    for mss in (None, ETHERNET):
        found = rounds(bench, [*ours, *reference], others, mss,
                       lambda peer, mss: Fetch(peer, seed, bench.torrent, into, mss).run())
        shutil.rmtree(into, ignore_errors=True)
        report(bench, found, f"{bench.size // MIB} MiB to {file_system(into.parent)}, "
               f"{segments(mss)}")


def rounds(bench, each, second, mss, once):
    """Name -> results; `each` in every round, `second` in every second one, slow ones once."""
    found = {}
    for turn in range(bench.args.repeat):
        joining = [p for p in second if turn % 2 == 0 and not (turn and p.slow)]
        peers = [*each, *joining]
        for peer in peers[turn % len(peers):] + peers[:turn % len(peers)]:
            if peer.dir in bench.broken:
                continue
            result = bench.measure("fetch", peer, lambda: once(peer, mss), mss=mss, turn=turn)
            if result:
                found.setdefault(peer.name, []).append(result)
    return found


def report(bench, found, title):
    cpu, wall = ({n: statistics.median(r[k] for r in rs) for n, rs in found.items()}
                 for k in ("cpu", "wall"))
    best, soonest = (min((v for n, v in of.items() if n in OTHERS), default=None)
                     for of in (cpu, wall))
    rows = []
    for name in sorted(cpu, key=cpu.get):
        rs = found[name]
        rows.append([name, spread([r["cpu"] for r in rs]), ratio(cpu[name], cpu.get("reference")),
                     ratio(cpu[name], best), spread([r["wall"] for r in rs]),
                     ratio(wall[name], soonest), f"{max(r['peak_mib'] for r in rs):.1f}",
                     f"{max(r['written_mib'] for r in rs):.0f}",
                     spread([r["seed_cpu"] for r in rs]), spread([r["other_load"] for r in rs]),
                     "" if all(r["same"] for r in rs) else "WRONG DATA"])
    table(f"fetch: {title}", ["", "CPU s/GiB", "of reference", "of best other", "seconds",
          "of best other", "peak MiB", "MiB written", "seed's CPU s/GiB", "other load", ""], rows)
    if "perennial" not in cpu:
        return
    for what, value, base, most in (
            ("CPU against reference", cpu, cpu.get("reference"), CPU_OF_REFERENCE),
            ("CPU against best other", cpu, best, CPU_OF_BEST_OTHER),
            ("time against best other", wall, soonest, WALL_OF_BEST_OTHER)):
        if base:
            bench.verdict(f"fetch: {what}, {title}", value["perennial"] / base, most)
    mine = found["perennial"]
    bench.verdict(f"fetch: peak MiB, {title}", max(r["peak_mib"] for r in mine), PEAK_MIB)
    bench.verdict(f"fetch: contents that differ, {title}", sum(not r["same"] for r in mine), 0)


def file_system(folder):
    """The folder's file system, by name."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    return kind.stdout.strip() or "?"
