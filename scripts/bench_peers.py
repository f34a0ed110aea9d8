"""The peers `bench` measures: how each is set up, started and stopped, and what it costs.

All get the same terms: 127.0.0.1 only, plaintext accepted, no DHT, local discovery, peer exchange,
uTP or port mapping, rates and upload slots unlimited as far as they let us; and resume data, so
that what is measured is a restart and never a hash check. To fetch, they begin with nothing. A new
one is a class, named in OTHERS.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench_load import answers, bencode, has_all

SCRIPTS = Path(__file__).resolve().parent
CORES = sorted(os.sched_getaffinity(0))
PEER_CORE, LOAD_CORE = CORES[0], CORES[-1]
MANY = "20000"


class Peer:
    """A peer with one torrent, in a folder of its own that is also its HOME.

    The content lies in `folder`, or will when it is `fetching`.
    """

    name = ""
    command = ""             # the program, found on PATH
    first_run = False        # whether its own first run makes what a restart needs
    slow = False             # whether one measurement takes so long that there can be few
    one_shot = False         # fetching: it goes to the seed by itself, and ends when it has all
    stop_signal = signal.SIGTERM
    env = {}

    def __init__(self, work, port):
        self.dir, self.port, self.api = work / "peers" / self.name, port, port + 1
        self.address = ("127.0.0.1", port)
        self.process = self.log = self.torrent = self.folder = None
        self.fetching = False

    @classmethod
    def installed(cls):
        return shutil.which(cls.command) is not None

    def configure(self):
        """Writes what it needs into its fresh folder."""

    def argv(self):
        raise NotImplementedError

    def hand_over(self):
        """In its first run: gives it the torrent, where its command line does not."""

    def prepare(self, torrent):
        """From here on `start` is a restart."""
        self.set_up(torrent, torrent.data.parent)
        if self.first_run:
            self.start(CORES)
            try:
                self.hand_over()
                self.wait(lambda: has_all(self.address, torrent), 60)
                time.sleep(1)
            finally:
                self.stop()

    def prepare_fetch(self, torrent, folder):
        """From here on `start` begins with nothing, and what it fetches goes to the folder."""
        self.fetching = True
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.set_up(torrent, folder)

    def set_up(self, torrent, folder):
        self.torrent, self.folder = torrent, folder
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        self.configure()

    def start(self, cores=(PEER_CORE,)):
        self.log = open(self.dir / "log.txt", "wb")
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.argv(), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, cwd=self.dir,
            env={**os.environ, "HOME": str(self.dir), **self.env}, start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores))
        self.pid = self.process.pid

    def wait(self, condition, limit=30):
        """Seconds from the start until the condition holds."""
        while not condition():
            if self.process.poll() is not None:
                raise RuntimeError(self.last_words())
            if time.monotonic() - self.started > limit:
                raise TimeoutError(f"not ready after {limit} s")
            time.sleep(0.01)
        return time.monotonic() - self.started

    def last_words(self):
        lines = (self.dir / "log.txt").read_text(errors="replace").splitlines()
        return f"ended with {self.process.returncode}: {' '.join(lines[-1:])}"

    def wait_answering(self):
        return self.wait(lambda: answers(self.address, self.torrent))

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.log:
            self.log.close()
        self.process = self.log = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    # -- what it costs; of all its processes ----------------------------------------------------

    def processes(self):
        found, todo = [], [self.pid]
        while todo:
            found.append(todo.pop())
            for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
                todo.extend(map(int, children.read_text().split()))
        return found

    def cpu(self):
        """User and system seconds so far, reaped children's included.

        The process's CPU clock says what utime and stime say, in nanoseconds in place of ticks.
        """
        total = 0
        for pid in self.processes():
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            reaped = int(stat[13]) + int(stat[14])
            total += time.clock_gettime(~pid << 3 | 2) + reaped / os.sysconf("SC_CLK_TCK")
        return total

    def memory(self, field):
        """A field of /proc/PID/status, in bytes: VmHWM, RssAnon; none once it has ended."""
        found = (re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                 for pid in self.processes())
        return sum(int(match[1]) for match in found if match) * 1024

    def bytes_read(self):
        """What it has read by system calls, from anywhere."""
        return self.io("rchar")

    def bytes_written(self):
        """What it has made dirty of files on disks, also by mapping them; not on tmpfs."""
        return self.io("write_bytes")

    def io(self, field):
        return sum(int(re.search(rf"^{field}: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.M)[1])
                   for pid in self.processes())

    def socket_bytes(self):
        """What the kernel holds for each of its connections."""
        out = subprocess.run(["ss", "-tmnH", f"sport = :{self.port}"],
                             capture_output=True, text=True, check=True).stdout
        found = (dict(re.findall(r"([a-z]+)(\d+)", memory))
                 for memory in re.findall(r"skmem:\((.*?)\)", out))
        return [int(f["r"]) + int(f["w"]) + int(f["f"]) for f in found]


class Perennial(Peer):
    name = "perennial"
    first_run = True
    stop_signal = signal.SIGINT

    def __init__(self, work, port, program, board):
        super().__init__(work, port)
        self.dir = self.dir.with_name(f"perennial-{board}")
        self.program, self.board = program, board

    def argv(self):
        return [self.program, "share", str(self.torrent.data), "--torrent", str(self.torrent.path),
                "--listen", f"127.0.0.1:{self.port}", "--state", str(self.dir / "state"),
                "--board", self.board, "--json"]

    def ready(self):
        return self.said("ready")

    def said(self, event):
        log = (self.dir / "log.txt").read_text(errors="replace")
        return f'"event":"{event}"' in log.replace(" ", "")


class Reference(Peer):
    """reference.c: not a program to use, but the least that serving can cost."""

    command = "gcc"

    def __init__(self, work, port, mode, blocks, lowat):
        self.name, self.mode = f"reference-{mode}", (mode, str(blocks), str(lowat))
        super().__init__(work, port)

    def configure(self):
        subprocess.run(["gcc", "-O2", "-o", self.dir / "reference", SCRIPTS / "reference.c"],
                       check=True)

    def argv(self):
        t = self.torrent
        return [str(self.dir / "reference"), str(self.port), t.info_hash.hex(), str(t.data),
                str(t.piece_bytes), *self.mode]


class Transmission(Peer):
    """It unchokes newcomers each 10 s only; it serves, and asks, in pulses half a second apart."""

    name, command, slow = "transmission", "transmission-daemon", True

    def configure(self):
        (self.dir / "settings.json").write_text(json.dumps({
            "bind-address-ipv4": "127.0.0.1", "bind-address-ipv6": "::1", "peer-port": self.port,
            "rpc-enabled": False, "dht-enabled": False, "lpd-enabled": False, "pex-enabled": False,
            "utp-enabled": False, "port-forwarding-enabled": False, "encryption": 0,
            "peer-limit-global": int(MANY), "peer-limit-per-torrent": int(MANY),
            "upload-slots-per-torrent": int(MANY), "queue-stalled-enabled": False,
            "download-dir": str(self.folder), "preallocation": 0}))
        name, now = self.torrent.info_hash.hex(), int(time.time())
        (self.dir / "torrents").mkdir()
        shutil.copy(self.torrent.path, self.dir / "torrents" / f"{name}.torrent")
        if self.fetching:
            return
        (self.dir / "resume").mkdir()
        (self.dir / "resume" / f"{name}.resume").write_bytes(bencode({
            "added-date": now, "done-date": now, "destination": str(self.folder),
            "name": self.torrent.data.name, "paused": 0, "max-peers": int(MANY),
            "priority": [0], "dnd": [0],
            "progress": {"blocks": "all", "have": "all", "time-checked": [now]}}))

    def argv(self):
        return [self.command, "-f", "-g", str(self.dir)]


class Libtorrent(Peer):
    """libtorrent-rasterbar with nothing but its Python binding around it."""

    name, command = "libtorrent", "/usr/bin/python3"
    SCRIPT = """
import sys, time, libtorrent as lt
port, data_dir, path, pieces = sys.argv[1:]
session = lt.session({
    "listen_interfaces": "127.0.0.1:" + port, "alert_mask": 0, "enable_dht": False,
    "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_utp": False, "enable_outgoing_utp": False, "in_enc_policy": 2,
    "out_enc_policy": 2, "connections_limit": 20000, "unchoke_slots_limit": -1})
info = lt.torrent_info(path)
params = lt.read_resume_data(lt.bencode({
    "file-format": "libtorrent resume file", "file-version": 1,
    "info-hash": info.info_hash().to_bytes(),
    "pieces": bytes([int(pieces)]) * info.num_pieces()}))
params.ti, params.save_path, params.max_connections, params.max_uploads = info, data_dir, -1, -1
params.flags &= ~(lt.torrent_flags.paused | lt.torrent_flags.auto_managed)
session.add_torrent(params)
while True:
    time.sleep(3600)
"""

    @classmethod
    def installed(cls):
        return super().installed() and subprocess.run(
            [cls.command, "-c", "import libtorrent"], capture_output=True).returncode == 0

    def argv(self):
        return [self.command, "-c", self.SCRIPT, str(self.port), str(self.folder),
                str(self.torrent.path), "0" if self.fetching else "1"]


class Qbittorrent(Peer):
    name, command, first_run = "qbittorrent", "qbittorrent-nox", True

    def configure(self):
        config = self.dir / "qBittorrent" / "config"
        config.mkdir(parents=True)
        (config / "qBittorrent.conf").write_text(f"""[LegalNotice]
Accepted=true
[BitTorrent]
Session\\Port={self.port}
Session\\InterfaceAddress=127.0.0.1
Session\\DHTEnabled=false
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\BTProtocol=TCP
Session\\Encryption=2
Session\\MaxConnections=-1
Session\\MaxConnectionsPerTorrent=-1
Session\\MaxUploads=-1
Session\\MaxUploadsPerTorrent=-1
Session\\QueueingSystemEnabled=false
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\\Address=127.0.0.1
WebUI\\Port={self.api}
WebUI\\LocalHostAuth=false
WebUI\\UseUPnP=false
""")

    def argv(self):
        return [self.command, f"--profile={self.dir}", f"--webui-port={self.api}"]

    def hand_over(self):
        mark = "boundary-of-the-form"
        fields = {"savepath": self.folder,
                  "skip_checking": "false" if self.fetching else "true"}
        parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode()
                 for k, v in fields.items()]
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="torrents"; '
                     'filename="t.torrent"\r\n\r\n'.encode()
                     + self.torrent.path.read_bytes() + f"\r\n--{mark}--\r\n".encode())
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api}/api/v2/torrents/add", b"".join(parts),
            {"Content-Type": f"multipart/form-data; boundary={mark}"})
        self.wait(lambda: post(request))


class Aria2(Peer):
    """Seeding, it unchokes only 3 or 4 peers at a time; no option changes that."""

    name, command = "aria2", "aria2c"

    def argv(self):
        unverified = "false" if self.fetching else "true"
        return [self.command, "--no-conf", f"--dir={self.folder}",
                "--disable-ipv6=true", f"--listen-port={self.port}", "--interface=127.0.0.1",
                "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
                "--enable-peer-exchange=false", "--bt-max-peers=0", "--seed-ratio=0.0",
                "--file-allocation=none", "--quiet=true", f"--bt-seed-unverified={unverified}",
                str(self.torrent.path)]


class Rtorrent(Peer):
    name, command = "rtorrent", "rtorrent"

    def configure(self):
        t, folder = self.torrent, self.folder
        # Without DHT it refuses a torrent that names no tracker; it may not use this one.
        meta = {"info": t.info, "announce": "udp://127.0.0.1:9/announce"}
        if not self.fetching:
            file = {"priority": 1, "mtime": int(t.data.stat().st_mtime), "completed": t.piece_count}
            meta["libtorrent_resume"] = {"bitfield": t.piece_count, "files": [file]}
            meta["rtorrent"] = {
                "chunks_wanted": 0, "chunks_done": t.piece_count, "complete": 1, "hashing": 0,
                "state": 1, "state_changed": 0, "directory": str(folder)}
        (self.dir / "session").mkdir()
        (self.dir / "seed.torrent").write_bytes(bencode(meta))
        (self.dir / "rtorrent.rc").write_text(f"""system.daemon.set = true
directory.default.set = {folder}
session.path.set = {self.dir}/session
network.bind_address.set = 127.0.0.1
network.port_range.set = {self.port}-{self.port}
network.port_random.set = no
network.max_open_sockets.set = 4096
protocol.encryption.set = none
protocol.pex.set = no
dht.mode.set = disable
trackers.use_udp.set = no
throttle.max_uploads.set = {MANY}
throttle.max_uploads.global.set = {MANY}
throttle.max_peers.normal.set = {MANY}
throttle.max_peers.seed.set = {MANY}
throttle.min_peers.seed.set = 1
schedule2 = load,0,0,((load.start,"{self.dir}/seed.torrent"))
""")

    def argv(self):
        return [self.command, "-n", "-o", f"import={self.dir}/rtorrent.rc"]


class Rqbit(Peer):
    name, command, first_run, stop_signal = "rqbit", "rqbit", True, signal.SIGINT
    env = {"RQBIT_LOG_LEVEL_CONSOLE": "error"}

    def argv(self):
        # Its own read timeout of 10 s would close every quiet connection.
        return [self.command, "--disable-dht", "--disable-lsd", "--disable-trackers",
                "--peer-limit", MANY, "--peer-read-write-timeout", "180s",
                "--disable-upnp-port-forward",
                "--ipv4-only", "--listen-ip", "127.0.0.1", "--listen-port", str(self.port),
                "--http-api-listen-addr", f"127.0.0.1:{self.api}", "server", "start",
                "--persistence-location", str(self.dir / "session"), "--fastresume",
                str(self.folder)]

    def hand_over(self):
        url = (f"http://127.0.0.1:{self.api}/torrents?overwrite=true"
               f"&output_folder={self.folder}")
        request = urllib.request.Request(url, self.torrent.path.read_bytes())
        self.wait(lambda: post(request))


def post(request):
    """Whether the request was answered; not, while the program is still starting."""
    try:
        with urllib.request.urlopen(request, timeout=60):
            return True
    except ConnectionError:
        return False
    except urllib.error.URLError as e:
        if isinstance(e.reason, ConnectionError):
            return False
        raise


OTHERS = {p.name: p for p in (Transmission, Libtorrent, Qbittorrent, Aria2, Rtorrent, Rqbit)}
