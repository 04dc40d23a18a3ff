"""The shop's visitors: a fixed rate of requests from a few keep-alive clients, each written to a log.

    python load.py --rate 30 --workers 8 [--uses 25] --log FILE

uses: requests on one connection.

One JSON object a line: method, path, status (0: no answer), start_ns (CLOCK_MONOTONIC), latency_ns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import time
from typing import TextIO

PRODUCTS = 3000
CATEGORIES = 20


def visit(chance: random.Random) -> tuple[str, str, str | None]:
    """(method, path, body) of what a visitor does next."""
    # A few products are asked for most of the time: that is what the cache is for.
    product = min(int(chance.paretovariate(0.6)), PRODUCTS)
    category = chance.randint(1, CATEGORIES)
    kind = chance.random()
    if kind < 0.60:
        return "GET", f"/products/{product}", None
    if kind < 0.80:
        return "GET", f"/products?category={category}", None
    if kind < 0.90:
        return "GET", f"/products/top?category={category}", None
    return "POST", f"/products/{product}/reviews", json.dumps({"stars": chance.randint(1, 5), "text": "fine"})


class Worker(threading.Thread):
    def __init__(
        self, number: int, period_s: float, offset_s: float, uses: int, log: TextIO, lock: threading.Lock
    ) -> None:
        super().__init__(daemon=True)
        self.chance = random.Random(number)
        self.period_s = period_s
        self.offset_s = offset_s
        self.uses = uses
        self.log = log
        self.lock = lock

    def run(self) -> None:
        uses = 0
        connection = http.client.HTTPConnection("gateway", 80, timeout=10)
        due = time.monotonic() + self.offset_s
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            # A worker that fell behind starts anew instead of sending a burst.
            due = max(due + self.period_s, time.monotonic())
            method, path, body = visit(self.chance)
            start_ns = time.monotonic_ns()
            try:
                connection.request(method, path, body)
                response = connection.getresponse()
                response.read()
                status = response.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            line = {
                "method": method, "path": path, "status": status,
                "start_ns": start_ns, "latency_ns": time.monotonic_ns() - start_ns,
            }  # fmt: skip
            with self.lock:
                self.log.write(json.dumps(line) + "\n")
            uses += 1
            if uses % self.uses == 0:
                connection.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--uses", type=int, default=25)
    parser.add_argument("--log", required=True)
    options = parser.parse_args()
    period_s = options.workers / options.rate
    lock = threading.Lock()
    with open(options.log, "w", buffering=1) as log:
        workers = [
            Worker(i, period_s, period_s * i / options.workers, options.uses, log, lock) for i in range(options.workers)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
