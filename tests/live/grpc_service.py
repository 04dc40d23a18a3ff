"""A gRPC service with all four kinds of calls, and calls that fail; runs until it is ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


def get(request: bytes, context: Any) -> bytes:
    if request == b"nothing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such item")
    if request == b"slow":
        time.sleep(1)
    return b"item " + request


def list_items(request: bytes, context: Any) -> Iterator[bytes]:
    for number in range(5):
        yield b"%d" % number * 300


def add(requests: Iterator[bytes], context: Any) -> bytes:
    return b"%d" % sum(len(r) for r in requests)


def chat(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for request in requests:
        yield b"you said " + request


def serve() -> None:
    handlers = {
        "Get": grpc.unary_unary_rpc_method_handler(get),
        "List": grpc.unary_stream_rpc_method_handler(list_items),
        "Add": grpc.stream_unary_rpc_method_handler(add),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.v1.Items", handlers),))
    server.add_insecure_port("127.0.0.1:50051")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    serve()
