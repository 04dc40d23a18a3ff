"""OpenWire commands of ActiveMQ (org.apache.activemq.command.CommandTypes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WIREFORMAT_INFO: Final = 1
SHUTDOWN_INFO: Final = 11
RESPONSE: Final = 30
EXCEPTION_RESPONSE: Final = 31
RESPONSES: Final = frozenset(range(30, 35))

NAMES: Final = {
    1: "WireFormatInfo",
    2: "BrokerInfo",
    3: "ConnectionInfo",
    4: "SessionInfo",
    5: "ConsumerInfo",
    6: "ProducerInfo",
    7: "TransactionInfo",
    8: "DestinationInfo",
    9: "RemoveSubscriptionInfo",
    10: "KeepAliveInfo",
    11: "ShutdownInfo",
    12: "RemoveInfo",
    14: "ControlCommand",
    15: "FlushCommand",
    16: "ConnectionError",
    17: "ConsumerControl",
    18: "ConnectionControl",
    19: "ProducerAck",
    20: "MessagePull",
    21: "MessageDispatch",
    22: "MessageAck",
    23: "ActiveMQMessage",
    24: "ActiveMQBytesMessage",
    25: "ActiveMQMapMessage",
    26: "ActiveMQObjectMessage",
    27: "ActiveMQStreamMessage",
    28: "ActiveMQTextMessage",
    29: "ActiveMQBlobMessage",
    30: "Response",
    31: "ExceptionResponse",
    32: "DataResponse",
    33: "DataArrayResponse",
    34: "IntegerResponse",
    40: "DiscoveryEvent",
    50: "JournalTopicAck",
    51: "JournalTransaction",
    52: "DurableSubscriptionInfo",
    53: "PartialCommand",
    54: "PartialLastCommand",
    55: "Replay",
    90: "MessageDispatchNotification",
}
# CommandTypes of destinations: queue, topic and their temporary kinds.
DESTINATIONS: Final = {100: "queue", 101: "topic", 102: "temp-queue", 103: "temp-topic"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    command_id: -1 where not read; correlation_id: of responses; response_required: the sender waits.
    body: the bytes behind the common fields, as far as captured. tight_offered, version: of WireFormatInfo.
    """

    kind: int
    command_id: int
    correlation_id: int
    response_required: bool
    body: bytes
    tight_offered: bool | None = None
    version: int = 0
