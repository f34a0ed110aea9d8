"""What `bench` prints, and how much of the machine others took meanwhile."""

import os
import statistics
import time
from pathlib import Path


class Noise:
    """How much work other programs do meanwhile."""

    def __init__(self):
        self.began, self.busy = time.monotonic(), self.machine()

    @staticmethod
    def machine():
        v = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
        return (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / os.sysconf("SC_CLK_TCK")

    def cores(self, known_cpu):
        wall = time.monotonic() - self.began
        return max(0.0, (self.machine() - self.busy - known_cpu) / wall)


def plural(connections):
    return "1 connection" if connections == 1 else f"{connections} connections"


def segments(mss):
    return f"MSS {mss}" if mss else "MSS of loopback"


def spread(values, digits=2):
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def ratio(value, base):
    return f"{value / base:.2f}" if base else "-"


def table(title, head, rows):
    print(f"\n{title}\n")
    rows = [head, *([str(c) for c in row] for row in rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  " + "  ".join([row[0].ljust(widths[0])]
                               + [c.rjust(w) for c, w in zip(row[1:], widths[1:])]).rstrip())
    print(flush=True)
