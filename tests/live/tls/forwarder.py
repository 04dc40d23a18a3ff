"""Hands the bytes of each connection on, both ways: TLS goes through it, and it has no TLS library.

Arguments: own port, port of the server.
"""

from __future__ import annotations

import socket
import sys
import threading


def hand_on(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
        for pair in ((client, server), (server, client)):
            threading.Thread(target=hand_on, args=pair, daemon=True).start()


if __name__ == "__main__":
    main()
