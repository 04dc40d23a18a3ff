"""A TCP proxy that keeps what both sides of a real conversation sent, as pieces for `wire.decode`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.unit.analyze.protocols.wire import Piece


class Proxy:
    """Listens on `port` of 127.0.0.1; pieces[n]: what its n-th connection carried, in the order seen."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.pieces: list[list[Piece]] = []
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._spawn(self._accept)

    def _spawn(self, work: object, *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)  # type: ignore[arg-type]
        thread.start()
        self._threads.append(thread)

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            self._sockets += [client, server]
            kept: list[Piece] = []
            self.pieces.append(kept)
            self._spawn(self._copy, "c", client, server, kept)
            self._spawn(self._copy, "s", server, client, kept)

    @staticmethod
    def _copy(side: str, source: socket.socket, sink: socket.socket, kept: list[Piece]) -> None:
        try:
            while data := source.recv(1 << 16):
                kept.append((side, data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads[1:]:
            thread.join(2)
        for end in self._sockets:
            end.close()


@contextmanager
def recorded(target_port: int) -> Iterator[Proxy]:
    """A Proxy in front of a server on 127.0.0.1; after the block all that was sent is in its pieces."""
    proxy = Proxy(target_port)
    try:
        yield proxy
    finally:
        proxy.close()
