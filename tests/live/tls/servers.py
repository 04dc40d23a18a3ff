"""HTTP servers of Python, over TLS and without: one with a thread per connection, one with asyncio.

Arguments: certificate, key, then four ports: threads plain, threads TLS, asyncio plain, asyncio TLS.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer()

    def _answer(self) -> None:
        body = f"{self.path} {self.client_address[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer GETs until the client closes."""
    while True:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        path = head.split(b" ")[1].decode()
        body = f"{path} {writer.get_extra_info('peername')[1]}\n".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()
    writer.close()


async def serve_both(plain: int, secret: int, context: ssl.SSLContext) -> None:
    await asyncio.start_server(serve, "127.0.0.1", plain)
    await asyncio.start_server(serve, "127.0.0.1", secret, ssl=context)
    await asyncio.Event().wait()


def main() -> None:
    certificate, key, *rest = sys.argv[1:]
    ports = [int(port) for port in rest]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for port, secret in ((ports[0], False), (ports[1], True)):
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        if secret:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    asyncio.run(serve_both(ports[2], ports[3], context))


if __name__ == "__main__":
    main()
