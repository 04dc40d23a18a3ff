"""Frames of AMQP 0-9-1 and its methods."""

from __future__ import annotations

from typing import Final, NamedTuple

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8


class Frame(NamedTuple):
    """kind: METHOD, HEADER, BODY, HEARTBEAT, or 0 for the protocol header; payload at data[start:end]."""

    kind: int
    channel: int
    data: bytes
    start: int
    end: int


class Method(NamedTuple):
    """name: class.method; answers: the method answered by this one; waits: an answer belongs to it.

    content: header and body frames follow; sender: "c", "s" or "b" for both; layout: of the arguments, one
    word each: 2 4 8 (bytes of an integer), s (short string), l (long string), b (octet of bits), t (table), with
    `=name` to keep the value; bN=nowait: bit N says that no answer is wanted.
    """

    name: str
    sender: str
    layout: str = ""
    waits: bool = False
    answers: str = ""
    content: bool = False


def _ok(name: str, sender: str, layout: str = "") -> Method:
    return Method(name, sender, layout, answers=name.removesuffix("-ok"))


_QUEUE: Final = "2 s=queue"

# amqp0-9-1.xml with RabbitMQ's extensions, by (class id, method id).
METHODS: Final[dict[tuple[int, int], Method]] = {
    (10, 10): Method("connection.start", "s", "b b t l=mechanisms", waits=True),
    (10, 11): _ok("connection.start-ok", "c", "t s=mechanism"),
    (10, 20): Method("connection.secure", "s", waits=True),
    (10, 21): _ok("connection.secure-ok", "c"),
    (10, 30): Method("connection.tune", "s", "2=channel_max 4=frame_max 2=heartbeat", waits=True),
    (10, 31): _ok("connection.tune-ok", "c"),
    (10, 40): Method("connection.open", "c", "s=vhost", waits=True),
    (10, 41): _ok("connection.open-ok", "s"),
    (10, 50): Method("connection.close", "b", "2=code s=text 2=class 2=method", waits=True),
    (10, 51): _ok("connection.close-ok", "b"),
    (10, 60): Method("connection.blocked", "s", "s=text"),
    (10, 61): Method("connection.unblocked", "s"),
    (10, 70): Method("connection.update-secret", "c", waits=True),
    (10, 71): _ok("connection.update-secret-ok", "s"),
    (20, 10): Method("channel.open", "c", waits=True),
    (20, 11): _ok("channel.open-ok", "s"),
    (20, 20): Method("channel.flow", "b", "b", waits=True),
    (20, 21): _ok("channel.flow-ok", "b"),
    (20, 40): Method("channel.close", "b", "2=code s=text 2=class 2=method", waits=True),
    (20, 41): _ok("channel.close-ok", "b"),
    (30, 10): Method("access.request", "c", "s=realm", waits=True),
    (30, 11): _ok("access.request-ok", "s"),
    (40, 10): Method("exchange.declare", "c", "2 s=exchange s=type b4=nowait", waits=True),
    (40, 11): _ok("exchange.declare-ok", "s"),
    (40, 20): Method("exchange.delete", "c", "2 s=exchange b1=nowait", waits=True),
    (40, 21): _ok("exchange.delete-ok", "s"),
    (40, 30): Method("exchange.bind", "c", "2 s=exchange s=source s=routing_key b0=nowait", waits=True),
    (40, 31): _ok("exchange.bind-ok", "s"),
    (40, 40): Method("exchange.unbind", "c", "2 s=exchange s=source s=routing_key b0=nowait", waits=True),
    (40, 51): _ok("exchange.unbind-ok", "s"),
    (50, 10): Method("queue.declare", "c", f"{_QUEUE} b4=nowait", waits=True),
    (50, 11): _ok("queue.declare-ok", "s", "s=queue 4=message_count 4=consumer_count"),
    (50, 20): Method("queue.bind", "c", f"{_QUEUE} s=exchange s=routing_key b0=nowait", waits=True),
    (50, 21): _ok("queue.bind-ok", "s"),
    (50, 30): Method("queue.purge", "c", f"{_QUEUE} b0=nowait", waits=True),
    (50, 31): _ok("queue.purge-ok", "s", "4=message_count"),
    (50, 40): Method("queue.delete", "c", f"{_QUEUE} b2=nowait", waits=True),
    (50, 41): _ok("queue.delete-ok", "s", "4=message_count"),
    (50, 50): Method("queue.unbind", "c", f"{_QUEUE} s=exchange s=routing_key", waits=True),
    (50, 51): _ok("queue.unbind-ok", "s"),
    (60, 10): Method("basic.qos", "c", "4 2=prefetch_count b", waits=True),
    (60, 11): _ok("basic.qos-ok", "s"),
    (60, 20): Method("basic.consume", "c", f"{_QUEUE} s=consumer_tag b3=nowait", waits=True),
    (60, 21): _ok("basic.consume-ok", "s", "s=consumer_tag"),
    (60, 30): Method("basic.cancel", "b", "s=consumer_tag b0=nowait", waits=True),
    (60, 31): _ok("basic.cancel-ok", "b"),
    (60, 40): Method("basic.publish", "c", "2 s=exchange s=routing_key b", content=True),
    (60, 50): Method("basic.return", "s", "2=code s=text s=exchange s=routing_key", content=True),
    (60, 60): Method(
        "basic.deliver", "s", "s=consumer_tag 8=delivery_tag b=redelivered s=exchange s=routing_key", content=True
    ),
    (60, 70): Method("basic.get", "c", _QUEUE, waits=True),
    (60, 71): Method(
        "basic.get-ok",
        "s",
        "8=delivery_tag b=redelivered s=exchange s=routing_key 4=message_count",
        answers="basic.get",
        content=True,
    ),
    (60, 72): Method("basic.get-empty", "s", answers="basic.get"),
    (60, 80): Method("basic.ack", "b", "8=delivery_tag b=multiple"),
    (60, 90): Method("basic.reject", "c", "8=delivery_tag b=requeue"),
    (60, 100): Method("basic.recover-async", "c"),
    (60, 110): Method("basic.recover", "c", waits=True),
    (60, 111): _ok("basic.recover-ok", "s"),
    (60, 120): Method("basic.nack", "b", "8=delivery_tag b"),
    (85, 10): Method("confirm.select", "c", "b0=nowait", waits=True),
    (85, 11): _ok("confirm.select-ok", "s"),
    (90, 10): Method("tx.select", "c", waits=True),
    (90, 11): _ok("tx.select-ok", "s"),
    (90, 20): Method("tx.commit", "c", waits=True),
    (90, 21): _ok("tx.commit-ok", "s"),
    (90, 30): Method("tx.rollback", "c", waits=True),
    (90, 31): _ok("tx.rollback-ok", "s"),
}

# Section 1.2 of the specification: reply codes that are not the caller's fault.
SERVER_FAULTS: Final = frozenset({320, 540, 541})
SUCCESS: Final = 200
