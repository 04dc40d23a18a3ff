"""A slow link: packets to some addresses take a detour through this program, which holds each for a while.

    python delay.py --ms 40 --source ADDRESS ADDRESS...

Runs in a pod's network namespace. The kernel here has no netem: a TUN device takes the packets in, a raw socket
with a mark, which the detour's rule leaves alone, lets them out again. Ends with SIGTERM; the device goes with it.
"""

from __future__ import annotations

import argparse
import collections
import fcntl
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
MARK, TABLE = 7, 77
DEVICE = "slow0"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ms", type=float, required=True)
    parser.add_argument("--source", required=True)
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    ip("link", "set", DEVICE, "up")
    # Answers come by the straight way: a strict check of their route would drop them.
    for name in ("all", "eth0", DEVICE):
        with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w") as file:
            file.write("0")
    for address in options.addresses:
        ip("route", "add", address, "dev", DEVICE, "src", options.source, "table", str(TABLE))
    ip("rule", "add", "not", "fwmark", str(MARK), "table", str(TABLE), "pref", "100")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    held: collections.deque[tuple[float, bytes]] = collections.deque()
    try:
        while True:
            wait = max(0.0, held[0][0] - time.monotonic()) if held else 1.0
            if select.select([device], [], [], wait)[0]:
                held.append((time.monotonic() + options.ms / 1000, os.read(device, 65536)))
            while held and held[0][0] <= time.monotonic():
                packet = held.popleft()[1]
                if packet[0] >> 4 == 4:
                    out.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
    finally:
        ip("rule", "del", "pref", "100")


if __name__ == "__main__":
    main()
