"""The more popular, the faster: how long until everybody has a file that one origin may send once.

An origin and 1 to 16 boxes, each with a cap on what it sends, also to neighbours; they start
empty, find each other by a tracker, and stay when they have it. A web server with that cap would
take as many times as long as there are boxes. Each has an address of its own, 127.0.1.x, and the
port that goes with it: the tracker tells the address by the port, since nothing says that a box
speaks to it from where it listens.
"""

import http.server
import os
import shutil
import socketserver
import statistics
import threading
import time
import urllib.parse

from bench_load import bencode, make_torrent
from bench_peers import CORES, Perennial
from bench_tables import Noise, spread, table

MIB, KIB = 1 << 20, 1 << 10
SIZE, PIECE = 16 * MIB, 64 * KIB
CAP, CAP_BYTES = "4MB/s", 4_000_000
COUNTS, QUICK_COUNTS = (1, 2, 4, 8, 16), (1, 4, 16)
READY_S, LIMIT_S = 30, 30    # the limit is on top of what a web server would take
REPEATS_MAX = 3

SWARM_OF_ONE = 1.5           # aim at 1.2
ONE_OF_CAP = 0.9             # sooner than that, the cap does not hold and the rest says nothing


class Tracker(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """An HTTP tracker of one torrent (BEP 3, BEP 23)."""

    daemon_threads, request_queue_size = True, 64

    def __init__(self, port, address_of):
        super().__init__(("127.0.0.1", port), Announce)
        self.address_of, self.known = address_of, set()
        self.url = f"http://127.0.0.1:{port}/announce"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Announce(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query, encoding="latin-1")
        port, known = int(query["port"][0]), self.server.known
        if query.get("event") == ["stopped"]:
            known.discard(port)
        else:
            known.add(port)
        peers = b"".join(bytes(map(int, self.server.address_of(other).split(".")))
                         + other.to_bytes(2, "big") for other in sorted(known - {port}))
        body = bencode({"interval": 60, "peers": peers})
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Box(Perennial):
    """One of the swarm; the one with number 0 is the origin."""

    first_run = False

    def __init__(self, swarm, number):
        super().__init__(swarm.work, swarm.port + number, swarm.program, "small")
        self.name, self.swarm, self.number = f"box {number}", swarm, number
        self.dir = self.dir.with_name(f"box-{number}")
        self.address = (swarm.address_of(self.port), self.port)

    def argv(self):
        # A tracker on loopback is asked only when the owner names it.
        what = (["share", str(self.torrent.data), "--torrent", str(self.torrent.path)]
                if self.number == 0 else ["get", str(self.swarm.path), "-o", str(self.folder)])
        return [self.program, *what, "--tracker", self.swarm.tracker.url, "--up", CAP, "--cap-lan", "--json", "--board", self.board,
                "--listen", f"{self.address[0]}:{self.port}", "--state", str(self.dir / "state")]

    def same(self):
        found = self.folder / self.torrent.data.name
        return found.is_file() and found.read_bytes() == self.torrent.data.read_bytes()


class Swarm:
    """An origin, which is up, and so many boxes."""

    def __init__(self, work, port, program, torrent, tracker, count):
        self.work, self.port, self.program = work, port, program
        self.torrent, self.tracker = torrent, tracker
        self.path = work / "announced.torrent"
        self.path.write_bytes(bencode({"announce": tracker.url, "info": torrent.info}))
        self.boxes = [Box(self, number) for number in range(count + 1)]

    def address_of(self, port):
        return f"127.0.1.{1 + port - self.port}"

    def run(self):
        """Seconds from the start of the boxes until the last has it."""
        origin, *boxes = self.boxes
        self.tracker.address_of = self.address_of
        self.tracker.known.clear()
        origin.set_up(self.torrent, self.torrent.data.parent)
        for box in boxes:
            box.prepare_fetch(self.torrent, box.dir.with_name(f"{box.dir.name}-fetched"))
        limit = LIMIT_S + len(boxes) * SIZE / CAP_BYTES
        try:
            origin.start(CORES)
            origin.wait(lambda: origin.ready() and origin.port in self.tracker.known, READY_S)
            noise, began = Noise(), time.monotonic()
            for box in boxes:
                box.start(CORES)
            for box in boxes:
                box.wait(lambda: box.said("complete"), limit)
            took = time.monotonic() - began
            cpu = sum(box.cpu() for box in self.boxes)
            other = noise.cores(cpu)
        finally:
            for box in self.boxes:
                box.stop()
        result = {"seconds": took, "cpu": cpu, "same": all(box.same() for box in boxes),
                  "other_load": other}
        for box in boxes:
            shutil.rmtree(box.folder, ignore_errors=True)
        return result


def measure(bench, port):
    """The mode `swarm` of a `Bench`."""
    args, work = bench.args, bench.work / "swarm"
    if "perennial" not in bench.names:
        return
    torrent = make_torrent(work, SIZE, PIECE)
    os.sched_setaffinity(0, CORES)
    found = {}
    with Tracker(port + 90, None) as tracker:
        for turn in range(min(REPEATS_MAX, args.repeat)):
            for count in QUICK_COUNTS if args.quick else COUNTS:
                swarm = Swarm(work, port, args.program, torrent, tracker, count)
                origin = swarm.boxes[0]
                result = bench.measure("swarm", origin, swarm.run, count=count, turn=turn)
                if not result:
                    return
                found.setdefault(count, []).append(result)
    report(bench, found)


def report(bench, found):
    seconds = {count: statistics.median(r["seconds"] for r in rs) for count, rs in found.items()}
    rows = []
    for count, rs in found.items():
        rows.append([str(count), spread([r["seconds"] for r in rs]),
                     f"{seconds[count] / seconds[1]:.2f}", f"{count * SIZE / CAP_BYTES:.1f}",
                     f"{count}.00", spread([r["cpu"] for r in rs]),
                     spread([r["other_load"] for r in rs]),
                     "" if all(r["same"] for r in rs) else "WRONG DATA"])
    table(f"swarm: {SIZE // MIB} MiB in pieces of {PIECE // KIB} KiB, each may send {CAP}, until "
          "the last has it; beside it a web server with that cap, computed",
          ["boxes", "seconds", "of one", "server's seconds", "of one", "CPU s of all",
           "other load", ""], rows)
    bench.verdict("swarm: time for one box of what the cap makes it",
                  seconds[1] * CAP_BYTES / SIZE, least=ONE_OF_CAP)
    most = max(seconds)
    bench.verdict(f"swarm: time for {most} boxes of that for one", seconds[most] / seconds[1],
                  SWARM_OF_ONE)
    bench.verdict("swarm: boxes with another content",
                  sum(not r["same"] for rs in found.values() for r in rs), 0)
