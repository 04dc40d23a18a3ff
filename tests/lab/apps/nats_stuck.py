"""A listener of a NATS subject that answers a few requests and is then stuck with one.

python nats_stuck.py SUBJECT --answers 5
"""

from __future__ import annotations

import argparse
import asyncio

import nats
from nats.aio.msg import Msg


async def listen(subject: str, answers: int) -> None:
    client = await nats.connect("nats://nats:4222")
    left = answers

    async def answer(message: Msg) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            await asyncio.Event().wait()
        await message.respond(b"1.08")

    await client.subscribe(subject, queue="all", cb=answer)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("subject")
    parser.add_argument("--answers", type=int, required=True)
    options = parser.parse_args()
    asyncio.run(listen(options.subject, options.answers))


if __name__ == "__main__":
    main()
