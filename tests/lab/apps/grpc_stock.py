"""A small gRPC service and its client.

python grpc_stock.py serve --port 50051 --fail-ratio 0.3 [--slow-ratio 0.3 --slow-ms 600]
python grpc_stock.py ask --target ADDRESS:PORT --rate 20 [--deadline 0.25]
"""

from __future__ import annotations

import argparse
import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

SERVICE, METHOD = "shop.v1.Stock", "Get"


def serve(port: int, fail_ratio: float, slow_ratio: float, slow_ms: float) -> None:
    def get(request: bytes, context: Any) -> bytes:
        if random.random() < slow_ratio:
            time.sleep(slow_ms / 1000)
        if random.random() < fail_ratio:
            context.abort(grpc.StatusCode.UNAVAILABLE, "warehouse offline")
        return b"\x08\x07" + request

    handler = grpc.method_handlers_generic_handler(SERVICE, {METHOD: grpc.unary_unary_rpc_method_handler(get)})
    # As servers behind a balancer do, it asks its clients to connect anew now and then.
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.max_connection_age_ms", 3000)])
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"0.0.0.0:{port}")
    server.start()
    server.wait_for_termination()


def ask(target: str, rate: float, deadline_s: float) -> None:
    # No proxy and no retries of the library's own.
    options = [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target, options=options) as channel:
        get = channel.unary_unary(f"/{SERVICE}/{METHOD}")
        while True:
            with contextlib.suppress(grpc.RpcError):
                get(b"\x08\x01", timeout=deadline_s, wait_for_ready=True)
            time.sleep(1 / rate)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["serve", "ask"])
    parser.add_argument("--port", type=int)
    parser.add_argument("--fail-ratio", type=float, default=0.0)
    parser.add_argument("--slow-ratio", type=float, default=0.0)
    parser.add_argument("--slow-ms", type=float, default=0.0)
    parser.add_argument("--target")
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--deadline", type=float, default=5.0, help="seconds")
    options = parser.parse_args()
    if options.what == "serve":
        serve(options.port, options.fail_ratio, options.slow_ratio, options.slow_ms)
    else:
        ask(options.target, options.rate, options.deadline)


if __name__ == "__main__":
    main()
