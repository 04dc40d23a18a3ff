"""A client of any HTTP service: a fixed rate of GETs, each to one of the addresses by chance.

    python ask.py URL... --rate 10 [--workers 8] [--uses 25] [--timeout 10] [--receive-bytes N]

uses: requests on one connection; receive-bytes: the size of the sockets' receive buffer, 0 the system's own.
"""

from __future__ import annotations

import argparse
import http.client
import random
import socket
import sys
import threading
import time
from urllib.parse import urlsplit


class Connection(http.client.HTTPConnection):
    """A connection whose receive buffer is as small as is wished: set before it is opened, as its window is."""

    receive_bytes = 0

    def connect(self) -> None:
        if not self.receive_bytes:
            super().connect()
            return
        self.sock = socket.socket()
        self.sock.settimeout(self.timeout)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_bytes)
        self.sock.connect((self.host, self.port))


def ask(urls: list[str], period_s: float, offset_s: float, uses: int, timeout_s: float) -> None:
    open_: dict[str, tuple[Connection, int]] = {}
    due = time.monotonic() + offset_s
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        # Whoever fell behind starts anew instead of sending a burst.
        due = max(due + period_s, time.monotonic())
        url = urlsplit(random.choice(urls))
        connection, used = open_.pop(url.netloc, (None, 0))
        connection = connection or Connection(url.hostname or "", url.port or 80, timeout=timeout_s)
        try:
            connection.request("GET", f"{url.path or '/'}?{url.query}".rstrip("?"))
            connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            print(f"{url.geturl()}: {error!r}", file=sys.stderr, flush=True)
            connection.close()
            continue
        if used + 1 < uses:
            open_[url.netloc] = connection, used + 1
        else:
            connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("urls", nargs="+")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--uses", type=int, default=25)
    parser.add_argument("--timeout", type=float, default=10.0)
    parser.add_argument("--receive-bytes", type=int, default=0)
    options = parser.parse_args()
    Connection.receive_bytes = options.receive_bytes
    period_s = options.workers / options.rate
    threads = [
        threading.Thread(
            target=ask,
            args=(options.urls, period_s, period_s * n / options.workers, options.uses, options.timeout),
            daemon=True,
        )
        for n in range(options.workers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
