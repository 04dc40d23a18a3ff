"""Frames of Dubbo 2's default protocol, and its numbers (ExchangeCodec, DubboCodec, Response)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Call:
    """A request or an event (heartbeat). interface, method, ...: NULL where the serialisation cannot be read."""

    call_id: int
    two_way: bool
    event: str | None
    serialisation: str
    dubbo_version: str | None = None
    interface: str | None = None
    version: str | None = None
    method: str | None = None
    types: str | None = None
    attachments: dict[str, str] = field(default_factory=dict)
    guessed: bool = False


@dataclass(slots=True)
class Reply:
    """A response. exception: class of what the service threw; message: its text, or the error of the framework."""

    call_id: int
    status: int
    event: bool
    exception: str | None = None
    message: str | None = None


SERIALISATIONS: dict[int, str] = {
    1: "dubbo",
    2: "hessian2",
    3: "java",
    4: "compactedjava",
    5: "json",
    6: "fastjson",
    7: "nativejava",
    8: "kryo",
    9: "fst",
    10: "native-hessian",
    11: "avro",
    12: "protostuff",
    16: "gson",
    17: "jackson",
    21: "protobuf",
    22: "protobuf-json",
    23: "fastjson2",
    24: "msgpack",
    25: "kryo2",
    31: "triple",
}
JSON_LINES = frozenset((5, 6, 16))

OK = 20
STATUSES: dict[int, str] = {
    20: "OK",
    25: "SERIALIZATION_ERROR",
    30: "CLIENT_TIMEOUT",
    31: "SERVER_TIMEOUT",
    35: "CHANNEL_INACTIVE",
    40: "BAD_REQUEST",
    50: "BAD_RESPONSE",
    60: "SERVICE_NOT_FOUND",
    70: "SERVICE_ERROR",
    80: "SERVER_ERROR",
    90: "CLIENT_ERROR",
    100: "SERVER_THREADPOOL_EXHAUSTED_ERROR",
}
TIMEOUTS = frozenset((30, 31))
CLIENT_FAULTS = frozenset((25, 40, 60, 90))
