"""Commands of Pulsar's binary protocol (PulsarApi.proto)."""

from __future__ import annotations

from typing import Final, NamedTuple


class Kind(NamedTuple):
    """A command type: its name, and field numbers in its message (0: it has none).

    topic: field of the topic (or namespace); request_id; producer, consumer: ids; answers: the type that this one
    answers; error, message: of answers; code: field whose value `failed` means failure.
    """

    name: str
    request_id: int = 0
    topic: int = 0
    producer: int = 0
    consumer: int = 0
    answers: int = 0
    error: int = 0
    message: int = 0
    sequence: int = 0
    code: int = 0
    failed: int = -1


CONNECT, CONNECTED, SUBSCRIBE, PRODUCER, SEND, SEND_RECEIPT, SEND_ERROR, MESSAGE, ACK, FLOW = range(2, 12)
UNSUBSCRIBE, SUCCESS, ERROR, CLOSE_PRODUCER, CLOSE_CONSUMER, PRODUCER_SUCCESS, PING, PONG = range(12, 20)
AUTH_CHALLENGE, AUTH_RESPONSE = 36, 37

# The field of BaseCommand that holds a command has the number of its type.
KINDS: Final[dict[int, Kind]] = {
    CONNECT: Kind("CONNECT"),
    CONNECTED: Kind("CONNECTED", answers=CONNECT),
    SUBSCRIBE: Kind("SUBSCRIBE", 5, topic=1, consumer=4),
    PRODUCER: Kind("PRODUCER", 3, topic=1, producer=2),
    SEND: Kind("SEND", producer=1, sequence=2),
    SEND_RECEIPT: Kind("SEND_RECEIPT", producer=1, sequence=2, answers=SEND),
    SEND_ERROR: Kind("SEND_ERROR", producer=1, sequence=2, answers=SEND, error=3, message=4),
    MESSAGE: Kind("MESSAGE", consumer=1),
    ACK: Kind("ACK", 8, consumer=1),
    FLOW: Kind("FLOW", consumer=1),
    UNSUBSCRIBE: Kind("UNSUBSCRIBE", 2, consumer=1),
    SUCCESS: Kind("SUCCESS", 1, answers=-1),
    ERROR: Kind("ERROR", 1, answers=-1, error=2, message=3),
    CLOSE_PRODUCER: Kind("CLOSE_PRODUCER", 2, producer=1),
    CLOSE_CONSUMER: Kind("CLOSE_CONSUMER", 2, consumer=1),
    PRODUCER_SUCCESS: Kind("PRODUCER_SUCCESS", 1, answers=PRODUCER),
    PING: Kind("PING"),
    PONG: Kind("PONG", answers=PING),
    20: Kind("REDELIVER_UNACKNOWLEDGED_MESSAGES", consumer=1),
    21: Kind("PARTITIONED_METADATA", 2, topic=1),
    22: Kind("PARTITIONED_METADATA_RESPONSE", 2, answers=21, error=4, message=5, code=3, failed=1),
    23: Kind("LOOKUP", 2, topic=1),
    24: Kind("LOOKUP_RESPONSE", 4, answers=23, error=6, message=7, code=3, failed=2),
    25: Kind("CONSUMER_STATS", 1, consumer=4),
    26: Kind("CONSUMER_STATS_RESPONSE", 1, answers=25, error=2, message=3),
    27: Kind("REACHED_END_OF_TOPIC", consumer=1),
    28: Kind("SEEK", 2, consumer=1),
    29: Kind("GET_LAST_MESSAGE_ID", 2, consumer=1),
    30: Kind("GET_LAST_MESSAGE_ID_RESPONSE", 2, answers=29),
    31: Kind("ACTIVE_CONSUMER_CHANGE", consumer=1),
    32: Kind("GET_TOPICS_OF_NAMESPACE", 1, topic=2),
    33: Kind("GET_TOPICS_OF_NAMESPACE_RESPONSE", 1, answers=32),
    34: Kind("GET_SCHEMA", 1, topic=2),
    35: Kind("GET_SCHEMA_RESPONSE", 1, answers=34, error=2, message=3),
    AUTH_CHALLENGE: Kind("AUTH_CHALLENGE"),
    AUTH_RESPONSE: Kind("AUTH_RESPONSE", answers=AUTH_CHALLENGE),
    38: Kind("ACK_RESPONSE", 6, consumer=1, answers=ACK, error=4, message=5),
    39: Kind("GET_OR_CREATE_SCHEMA", 1, topic=2),
    40: Kind("GET_OR_CREATE_SCHEMA_RESPONSE", 1, answers=39, error=2, message=3),
    50: Kind("NEW_TXN", 1),
    51: Kind("NEW_TXN_RESPONSE", 1, answers=50, error=4, message=5),
    52: Kind("ADD_PARTITION_TO_TXN", 1, topic=4),
    53: Kind("ADD_PARTITION_TO_TXN_RESPONSE", 1, answers=52, error=4, message=5),
    54: Kind("ADD_SUBSCRIPTION_TO_TXN", 1),
    55: Kind("ADD_SUBSCRIPTION_TO_TXN_RESPONSE", 1, answers=54, error=4, message=5),
    56: Kind("END_TXN", 1),
    57: Kind("END_TXN_RESPONSE", 1, answers=56, error=4, message=5),
    58: Kind("END_TXN_ON_PARTITION", 1, topic=4),
    59: Kind("END_TXN_ON_PARTITION_RESPONSE", 1, answers=58, error=4, message=5),
    60: Kind("END_TXN_ON_SUBSCRIPTION", 1),
    61: Kind("END_TXN_ON_SUBSCRIPTION_RESPONSE", 1, answers=60, error=4, message=5),
    62: Kind("TC_CLIENT_CONNECT_REQUEST", 1),
    63: Kind("TC_CLIENT_CONNECT_RESPONSE", 1, answers=62, error=2, message=3),
    64: Kind("WATCH_TOPIC_LIST", 1, topic=3),
    65: Kind("WATCH_TOPIC_LIST_SUCCESS", 1, answers=64),
    66: Kind("WATCH_TOPIC_UPDATE"),
    67: Kind("WATCH_TOPIC_LIST_CLOSE", 1),
    68: Kind("TOPIC_MIGRATED"),
}

ERRORS: Final = (
    "UnknownError",
    "MetadataError",
    "PersistenceError",
    "AuthenticationError",
    "AuthorizationError",
    "ConsumerBusy",
    "ServiceNotReady",
    "ProducerBlockedQuotaExceededError",
    "ProducerBlockedQuotaExceededException",
    "ChecksumError",
    "UnsupportedVersionError",
    "TopicNotFound",
    "SubscriptionNotFound",
    "ConsumerNotFound",
    "TooManyRequests",
    "TopicTerminatedError",
    "ProducerBusy",
    "InvalidTopicName",
    "IncompatibleSchema",
    "ConsumerAssignError",
    "TransactionCoordinatorNotFound",
    "InvalidTxnStatus",
    "NotAllowedError",
    "TransactionConflict",
    "TransactionNotFound",
    "ProducerFenced",
)
SERVER_FAULTS: Final = frozenset({0, 1, 2, 6, 7, 8, 14, 20})


class Frame(NamedTuple):
    """kind: number of the command's type; fields: of its message; metadata: (start, end) of the message metadata."""

    kind: int
    fields: dict[int, int | bytes]
    data: bytes
    metadata: tuple[int, int]
    end: int
