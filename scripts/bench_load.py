"""The load `bench` puts on a seeder, and the content it asks for.

Many TCP connections in one epoll loop speak the plain wire protocol (BEP 3, no extensions), keep 64
requests of 16 KiB under way each, check one piece in 16 against its SHA-1 and drop the data. Every
connection comes from its own 127.x.y.z address, since peers refuse several from one address.
"""

import hashlib
import random
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

MIB, BLOCK = 1 << 20, 16 * 1024
CHOKE, UNCHOKE, INTERESTED, HAVE, BITFIELD, REQUEST, PIECE = 0, 1, 2, 4, 5, 6, 7
PIPELINE, CHECK_ONE_IN = 64, 16


# -- content ----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Torrent:
    """A single-file v1 torrent; its content lies at `data`, its metainfo at `path`."""

    data: Path
    path: Path
    size: int
    piece_bytes: int
    pieces: bytes
    info: dict
    info_hash: bytes

    @property
    def piece_count(self):
        return len(self.pieces) // 20

    def requests(self, piece):
        """The wire bytes that ask for every block of a piece."""
        size = min(self.piece_bytes, self.size - piece * self.piece_bytes)
        return b"".join(struct.pack(">IBIII", 13, REQUEST, piece, at, min(BLOCK, size - at))
                        for at in range(0, size, BLOCK))


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(bencode, value)) + b"e"
    return b"d" + b"".join(bencode(k) + bencode(value[k]) for k in sorted(value)) + b"e"


def make_torrent(folder, size, piece_bytes=MIB):
    """`size` pseudo-random bytes, the same on each machine, and their torrent; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"content-{size // MIB}.bin"
    if not data.exists() or data.stat().st_size != size:
        rng = random.Random(size)
        with open(data, "wb") as f:
            for at in range(0, size, MIB):
                f.write(rng.randbytes(min(MIB, size - at)))
    with open(data, "rb") as f:  # reading it also puts it into the page cache
        pieces = b"".join(hashlib.sha1(p).digest() for p in iter(lambda: f.read(piece_bytes), b""))
    info = {"length": size, "name": data.name, "piece length": piece_bytes, "pieces": pieces}
    path = data.with_suffix(".torrent")
    path.write_bytes(bencode({"info": info}))
    return Torrent(data, path, size, piece_bytes, pieces, info,
                   hashlib.sha1(bencode(info)).digest())


def warm(torrent):
    """Reads the content once, so that it is in the page cache."""
    buffer = bytearray(MIB)
    with open(torrent.data, "rb", buffering=0) as f:
        while f.readinto(buffer):
            pass


# -- connections ------------------------------------------------------------------------------

def connect(address, i, mss=None, receive_buffer=None, timeout=5):
    """A socket from the i-th source address.

    Both options have to be set before connect: loopback's own segments of 64 KiB make the kernel's
    accounting unlike that of a network, 1448 is Ethernet's.
    """
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if mss:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
    if receive_buffer:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    s.settimeout(timeout)
    try:
        s.bind((f"127.{10 + i // 62500}.{1 + i // 250 % 250}.{1 + i % 250}", 0))
        s.connect(address)
    except OSError:
        s.close()
        raise
    return s


def greeting(info_hash, i):
    return b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-BL0001-%012d" % i


def read_exactly(s, n):
    out = b""
    while len(out) < n:
        chunk = s.recv(n - len(out))
        if not chunk:
            raise ConnectionError("closed by the seeder")
        out += chunk
    return out


def answers(address, torrent, i=60000, timeout=2):
    """Whether the seeder answers a handshake for this torrent."""
    try:
        with connect(address, i, timeout=timeout) as s:
            s.sendall(greeting(torrent.info_hash, i))
            return read_exactly(s, 68)[28:48] == torrent.info_hash
    except OSError:
        return False


def has_all(address, torrent, i=61000, timeout=2):
    """Whether the seeder says, by bitfield or have messages, that it has the whole torrent."""
    have = set()
    try:
        with connect(address, i, timeout=timeout) as s:
            s.sendall(greeting(torrent.info_hash, i))
            read_exactly(s, 68)
            while len(have) < torrent.piece_count:
                body = read_exactly(s, int.from_bytes(read_exactly(s, 4), "big"))
                if body[:1] == bytes([BITFIELD]):
                    have.update(p for p in range(torrent.piece_count)
                                if body[1 + p // 8] & 0x80 >> p % 8)
                elif body[:1] == bytes([HAVE]):
                    have.add(int.from_bytes(body[1:], "big"))
    except OSError:
        pass
    return len(have) == torrent.piece_count


class Leech:
    """One connection; it sends its handshake, and its interest once that was answered."""

    def __init__(self, load, i):
        self.load, self.rng = load, random.Random(i)
        self.socket = connect(load.address, i, load.mss, load.receive_buffer)
        self.socket.sendall(greeting(load.torrent.info_hash, i))
        self.socket.setblocking(False)
        self.greeted = False
        self.choked, self.started = True, False
        self.bytes = self.waiting = 0      # received; requests not answered yet
        self.carry = b""                   # an incomplete message head
        self.skip = self.block = 0         # bytes left of the message; its payload if a block
        self.place = self.copy = None      # where the block belongs, if its piece is to be checked
        self.samples = {}                  # piece -> [bytes received, bytearray]
        self.pieces, self.todo, self.out = [], b"", b""

    def ask(self):
        """Tops the requests up: pieces in an order of its own, the blocks of a piece in order."""
        if self.choked or not self.started:
            return
        torrent, wanted = self.load.torrent, (PIPELINE - self.waiting) * 17
        while len(self.todo) < wanted:
            if not self.pieces:
                self.pieces = self.rng.sample(range(torrent.piece_count), torrent.piece_count)
            piece = self.pieces.pop()
            if piece % CHECK_ONE_IN == 0:
                size = min(torrent.piece_bytes, torrent.size - piece * torrent.piece_bytes)
                self.samples[piece] = [0, bytearray(size)]
            self.todo += self.load.requests(piece)
        self.out += self.todo[:wanted]
        self.todo = self.todo[wanted:]
        self.waiting = PIPELINE
        self.flush()

    def flush(self):
        if self.out:
            try:
                self.out = self.out[self.socket.send(self.out):]
            except OSError:  # no room yet; or closed, which the next read will find
                pass

    def feed(self, data):
        """Takes what came from the socket, in any cut."""
        if self.carry:
            data, self.carry = memoryview(self.carry + bytes(data)), b""
        at, end = 0, len(data)
        if not self.greeted:
            if end < 68:
                self.carry = bytes(data)
                return
            self.greeted, at = True, 68
            self.out += struct.pack(">IB", 1, INTERESTED)
        while at < end:
            if self.skip:
                take = min(self.skip, end - at)
                if self.place:
                    self.copy += data[at:at + take]
                self.skip -= take
                at += take
                if self.block and not self.skip:
                    self.received()
                continue
            length = int.from_bytes(data[at:at + 4], "big")
            head = 4 if length == 0 else 13 if data[at + 4:at + 5] == b"\x07" else 5
            if end - at < head:
                break
            self.begin(length, data[at + 4:at + head])
            at += head
        self.carry = bytes(data[at:])
        self.ask()

    def begin(self, length, head):
        self.block, self.place = 0, None
        if not length:
            return
        self.skip = length - len(head)
        if head[0] == PIECE:
            self.block = self.skip
            piece, begin = struct.unpack_from(">II", head, 1)
            if piece in self.samples:
                self.place, self.copy = (piece, begin), bytearray()
        elif head[0] == UNCHOKE:
            self.choked = False
        elif head[0] == CHOKE:
            self.choked, self.waiting = True, 0
            self.samples.clear()

    def received(self):
        self.bytes += self.block
        self.load.bytes += self.block
        self.waiting -= 1
        if not self.place:
            return
        piece, begin = self.place
        sample = self.samples.get(piece)
        if sample is None:
            return
        sample[0] += self.block
        sample[1][begin:begin + self.block] = self.copy
        if sample[0] == len(sample[1]):
            del self.samples[piece]
            good = self.load.torrent.pieces[piece * 20:piece * 20 + 20]
            if hashlib.sha1(sample[1]).digest() == good:
                self.load.pieces_good += 1
            else:
                self.load.pieces_bad += 1


# -- the load ---------------------------------------------------------------------------------

class Load:
    """`count` connections to one seeder."""

    def __init__(self, address, torrent, count, mss=None, receive_buffer=None):
        self.address, self.torrent, self.count = address, torrent, count
        self.mss, self.receive_buffer = mss, receive_buffer
        self.bytes = self.pieces_good = self.pieces_bad = self.refused = self.lost = 0
        self.poll, self.leeches, self._requests = select.epoll(), {}, {}
        self._buffer = bytearray(1 << 18)
        self._view = memoryview(self._buffer)
        for i in range(count):
            try:
                leech = Leech(self, i)
            except OSError:
                self.refused += 1
                continue
            self.leeches[leech.socket.fileno()] = leech
            self.poll.register(leech.socket.fileno(), select.EPOLLIN)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for leech in self.leeches.values():
            leech.socket.close()
        self.poll.close()

    def requests(self, piece):
        if piece not in self._requests:
            self._requests[piece] = self.torrent.requests(piece)
        return self._requests[piece]

    def turn(self, timeout):
        """One round of the event loop."""
        for fd, _ in self.poll.poll(timeout):
            leech = self.leeches[fd]
            try:
                n = leech.socket.recv_into(self._buffer)
                if n == 0:
                    raise ConnectionResetError
                leech.feed(self._view[:n])
                leech.flush()
            except BlockingIOError:
                pass
            except ConnectionError:
                self.poll.unregister(fd)
                self.leeches.pop(fd).socket.close()
                self.lost += 1

    def unchoked(self):
        return sum(not leech.choked for leech in self.leeches.values())

    def wait_unchoked(self, settle, limit=40):
        """Until all are unchoked, or some are and nothing has changed for `settle` seconds."""
        began = changed = time.monotonic()
        known = 0
        while self.leeches and time.monotonic() - began < limit:
            self.turn(0.1)
            now = self.unchoked()
            if now == len(self.leeches) or now and time.monotonic() - changed > settle:
                break
            if now != known:
                known, changed = now, time.monotonic()
        return self.unchoked()

    def download(self, total, seconds):
        """Until `total` bytes came, or `seconds` have passed; returns the seconds it took."""
        began = time.monotonic()
        for leech in list(self.leeches.values()):
            leech.started = True
            leech.ask()
        while self.leeches and self.bytes < total and time.monotonic() - began < seconds:
            self.turn(0.2)
        return time.monotonic() - began

    def stall(self, seconds, until_all=False):
        """Asks for 4 MiB on every connection as it is unchoked, and then reads no more from it.

        Goes on for `seconds`; with `until_all`, at most so long, until each was asked. Returns how
        many were.
        """
        end, asked = time.monotonic() + seconds, 0
        while time.monotonic() < end and not (until_all and asked == len(self.leeches)):
            for fd, leech in list(self.leeches.items()):
                if not leech.choked and not leech.started:
                    leech.started = True
                    pieces = (leech.rng.randrange(self.torrent.piece_count) for _ in range(4))
                    leech.out = b"".join(self.requests(p) for p in pieces)
                    self.poll.unregister(fd)
                    leech.flush()
                    asked += 1
            self.turn(0.1)
        return asked
