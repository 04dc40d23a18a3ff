"""An HTTP service of one thread, an event loop: some of its requests compute in it, and all others wait meanwhile.

python loop.py --port 80 --every 8 --ms 150
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def serve(port: int, every: int, ms: float) -> None:
    turns = itertools.count(1)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                if next(turns) % every == 0:
                    until = time.thread_time() + ms / 1000
                    while time.thread_time() < until:
                        pass
                writer.write(ANSWER)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(converse, "", port)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=int, required=True)
    parser.add_argument("--ms", type=float, required=True)
    options = parser.parse_args()
    asyncio.run(serve(options.port, options.every, options.ms))


if __name__ == "__main__":
    main()
