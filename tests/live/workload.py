"""A known workload: every way to move bytes over sockets, so many processes, so many connects.

Prints one JSON object: what a recording of it must hold. Run by test_exact.py below the recorder.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Iovec)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("length", ctypes.c_uint32),  # of struct mmsghdr around it
    )


def batch(buffers: list[Any]) -> Any:
    """struct mmsghdr[] with one buffer per message."""
    messages = (Message * len(buffers))()
    messages.buffers = buffers  # type: ignore[attr-defined]  # alive as long as they are pointed at
    for message, buffer in zip(messages, buffers, strict=True):
        vector = Iovec(ctypes.cast(buffer, ctypes.c_void_p), ctypes.sizeof(buffer))
        message.vectors = ctypes.pointer(vector)
        message.vector_count = 1
    return messages


def pair(family: int, host: str) -> tuple[socket.socket, socket.socket]:
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        client = socket.create_connection(listener.getsockname()[:2])
        return client, listener.accept()[0]


SENDERS: dict[str, Callable[[socket.socket, bytes], int]] = {
    "write": lambda s, d: os.write(s.fileno(), d),
    "writev": lambda s, d: os.writev(s.fileno(), [d[:3], d[3:10], b"", d[10:]]),
    "sendto": lambda s, d: s.send(d),
    "sendmsg": lambda s, d: s.sendmsg([d[:1], d[1:]]),
}
RECEIVERS: dict[str, Callable[[socket.socket, int], bytes]] = {
    "read": lambda s, n: os.read(s.fileno(), n),
    "recvfrom": lambda s, n: s.recv(n),
    "recvmsg": lambda s, n: s.recvmsg(n)[0],
}


def readv(one: socket.socket, size: int) -> bytes:
    buffers = [bytearray(5), bytearray(size)]
    count = os.readv(one.fileno(), buffers)
    return b"".join(buffers)[:count]


RECEIVERS["readv"] = readv


def exchange(family: int, host: str) -> dict[str, Any]:
    """Each sender with each receiver; returns what each end's stream must hold."""
    client, server = pair(family, host)
    sent = b""
    calls: list[list[Any]] = []
    number = 0
    for send in SENDERS.values():
        for receive in RECEIVERS.values():
            data = b"%04d:" % number + bytes(range(65, 91)) * (number % 7 + 1)
            number += 1
            send(client, data)
            server.recv(4, socket.MSG_PEEK)
            got = b""
            while len(got) < len(data):
                got += receive(server, len(data) - len(got))
            assert got == data
            sent += data
    calls += [["send", name, len(RECEIVERS)] for name in SENDERS]
    calls += [["receive", name, len(SENDERS)] for name in RECEIVERS]
    result = {
        "client_port": client.getsockname()[1],
        "server_port": server.getsockname()[1],
        "sent": sent.hex(),
        "calls": calls,
    }
    client.close()
    server.recv(1)
    server.close()
    return result


def transfer() -> dict[str, Any]:
    """sendfile to a socket and splice from one: lengths, between two ordinary writes."""
    client, server = pair(socket.AF_INET, "127.0.0.1")
    client.sendall(b"before")
    with tempfile.TemporaryFile() as file:
        file.write(b"f" * 5000)
        file.flush()
        assert os.sendfile(client.fileno(), file.fileno(), 0, 5000) == 5000
    client.sendall(b"after")
    assert server.recv(6, socket.MSG_WAITALL) == b"before"
    read, write = os.pipe()
    moved = 0
    while moved < 5000:
        moved += os.splice(server.fileno(), write, 5000 - moved)
        os.read(read, 65536)
    assert server.recv(5, socket.MSG_WAITALL) == b"after"
    ports = {"client_port": client.getsockname()[1], "server_port": server.getsockname()[1]}
    client.close()
    server.close()
    return ports


def datagrams(family: int, host: str) -> dict[str, Any]:
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((host, 0))
    address = server.getsockname()
    loose = socket.socket(family, socket.SOCK_DGRAM)
    loose.sendto(b"question", address)
    data, peer = server.recvfrom(100)
    server.sendto(b"answer to " + data, peer)
    loose.recvfrom(100)
    loose.sendto(b"", address)
    server.recvfrom(100)
    connected = socket.socket(family, socket.SOCK_DGRAM)
    connected.connect(address)
    batch_sent = [b"batch %d " % i + b"x" * i for i in range(5)]
    messages = batch([ctypes.create_string_buffer(d, len(d)) for d in batch_sent])
    assert libc.sendmmsg(connected.fileno(), messages, 5, 0) == 5
    for expected in (3, 2):  # a call that ends early, then one for the rest
        buffers = [ctypes.create_string_buffer(100) for _ in range(3)]
        got = libc.recvmmsg(server.fileno(), batch(buffers), expected, socket.MSG_DONTWAIT, None)
        assert got == expected, got
    for i in range(2):
        connected.send(b"more %d" % i)
    buffers = [ctypes.create_string_buffer(100) for _ in range(8)]
    assert libc.recvmmsg(server.fileno(), batch(buffers), 8, socket.MSG_DONTWAIT, None) == 2
    connected.send(b"last")
    buffers = [ctypes.create_string_buffer(100) for _ in range(8)]
    assert libc.recvmmsg(server.fileno(), batch(buffers), 8, socket.MSG_DONTWAIT, None) == 1
    return {
        "server_port": address[1],
        "loose_port": loose.getsockname()[1],
        "connected_port": connected.getsockname()[1],
        "batch": [d.decode() for d in batch_sent],
    }


def last_words() -> list[int]:
    """Answers that come together with the end of the stream, in one piece and in two; the client's ports."""
    ports = []
    for parts in ([b"bye"], [b"good", b"bye"]):
        client, server = pair(socket.AF_INET, "127.0.0.1")
        ports.append(client.getsockname()[1])
        for part in parts:
            server.sendall(part)
            if part is not parts[-1]:
                assert client.recv(100) == part
        server.close()
        time.sleep(0.05)
        assert client.recv(100) == b"bye"
        assert client.recv(100) == b""
        client.close()
    return ports


def connects() -> dict[str, int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        for _ in range(7):
            client = socket.create_connection(("127.0.0.1", port))
            listener.accept()[0].close()
            client.recv(1)
            client.close()
        # Data left unread at close: this end resets.
        for _ in range(3):
            client = socket.create_connection(("127.0.0.1", port))
            accepted = listener.accept()[0]
            client.sendall(b"unread")
            time.sleep(0.01)
            accepted.close()
            time.sleep(0.01)
            client.close()
    for _ in range(5):
        one = socket.socket()
        assert one.connect_ex(("127.0.0.1", port)) == 111
        one.close()
    return {"port": port, "ok": 10, "refused": 5, "reset": 3}


def processes() -> dict[str, Any]:
    for _ in range(11):
        subprocess.run(["/bin/true", "kubetape-known"], check=True)
    subprocess.run(["/bin/sh", "-c", "exit 3", "kubetape-status"])
    killed = subprocess.Popen(["/bin/sleep", "77.5"])
    killed.kill()
    killed.wait()
    return {"execs": 11, "killed": killed.pid}


def main() -> None:
    result = {
        "pid": os.getpid(),
        "tcp4": exchange(socket.AF_INET, "127.0.0.1"),
        "tcp6": exchange(socket.AF_INET6, "::1"),
        "transfer": transfer(),
        "udp4": datagrams(socket.AF_INET, "127.0.0.1"),
        "udp6": datagrams(socket.AF_INET6, "::1"),
        "connects": connects(),
        "last_words": last_words(),
        "processes": processes(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
