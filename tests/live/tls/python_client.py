"""HTTP clients of Python. Arguments: 'threads' or 'asyncio', then URLs; prints the bodies.

threads: three threads at a time, a GET and a POST each, on connections of their own. asyncio: all at the same time.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


def ask(url: str) -> str:
    parts = urlsplit(url)
    assert parts.hostname
    connection: HTTPConnection = (
        HTTPSConnection(parts.hostname, parts.port, context=CONTEXT)
        if parts.scheme == "https"
        else HTTPConnection(parts.hostname, parts.port)
    )
    bodies = []
    for method, path, body in (("GET", f"{parts.path}/get", None), ("POST", f"{parts.path}/post", b"p" * 3000)):
        connection.request(method, path, body)
        bodies.append(connection.getresponse().read().decode())
    connection.close()
    return "".join(bodies)


async def ask_three_times(url: str) -> str:
    parts = urlsplit(url)
    secret = CONTEXT if parts.scheme == "https" else None
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=secret)
    bodies = []
    for number in ("first", "second", "third"):
        writer.write(f"GET {parts.path}/{number} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length:")[1].split()[0])
        bodies.append((await reader.readexactly(size)).decode())
        await asyncio.sleep(0.01)
    writer.close()
    return "".join(bodies)


async def ask_all(urls: list[str]) -> list[str]:
    return await asyncio.gather(*(ask_three_times(url) for url in urls))


def main() -> None:
    kind, *urls = sys.argv[1:]
    if kind == "asyncio":
        answers = asyncio.run(ask_all(urls))
    else:
        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(ask, urls))
    print("".join(answers), end="")


if __name__ == "__main__":
    main()
