"""Frames of ZooKeeper's client protocol, and its numbers (ZooDefs.OpCode, KeeperException.Code, Watcher.Event)."""

from __future__ import annotations

from typing import Any, NamedTuple


class Call(NamedTuple):
    """A client's packet. op: OpCode; `CONNECT` for the first of a session, `WORD` for a four-letter word."""

    xid: int
    op: int
    path: str | None
    detail: dict[str, Any]


class Reply(NamedTuple):
    """A server's packet; body: bytes behind the header (perhaps cut); connect: session facts of a ConnectResponse."""

    xid: int
    zxid: int
    error: int
    body: bytes
    connect: dict[str, Any] | None


class Text(NamedTuple):
    """Bytes of the answer to a four-letter word."""

    start: bytes


NOTIFICATION_XID, PING_XID, AUTH_XID, WATCHES_XID = -1, -2, -4, -8
CONNECT, WORD = -1000, -1001  # not numbers of the protocol

MULTI, MULTI_READ, PING, CLOSE = 14, 22, 11, -11
OPERATIONS: dict[int, str] = {
    1: "create",
    2: "delete",
    3: "exists",
    4: "getData",
    5: "setData",
    6: "getACL",
    7: "setACL",
    8: "getChildren",
    9: "sync",
    11: "ping",
    12: "getChildren2",
    13: "check",
    14: "multi",
    15: "create2",
    16: "reconfig",
    17: "checkWatches",
    18: "removeWatches",
    19: "createContainer",
    20: "deleteContainer",
    21: "createTTL",
    22: "multiRead",
    100: "auth",
    101: "setWatches",
    102: "sasl",
    103: "getEphemerals",
    104: "getAllChildrenNumber",
    105: "setWatches2",
    106: "addWatch",
    107: "whoAmI",
    -10: "createSession",
    -11: "closeSession",
    CONNECT: "connect",
}
# Operations whose first field is a path.
WITH_PATH = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 17, 18, 19, 20, 21, 103, 104, 106))
CREATES = frozenset((1, 15, 19, 21))
# Operations whose path is followed by one byte: set a watch or not.
WATCHES = frozenset((3, 4, 8, 12))

CREATE_MODES = {
    0: "persistent",
    1: "ephemeral",
    2: "persistent_sequential",
    3: "ephemeral_sequential",
    4: "container",
    5: "persistent_ttl",
    6: "persistent_sequential_ttl",
}

ERRORS: dict[int, str] = {
    -1: "SystemError",
    -2: "RuntimeInconsistency",
    -3: "DataInconsistency",
    -4: "ConnectionLoss",
    -5: "MarshallingError",
    -6: "Unimplemented",
    -7: "OperationTimeout",
    -8: "BadArguments",
    -12: "UnknownSession",
    -13: "NewConfigNoQuorum",
    -14: "ReconfigInProgress",
    -100: "APIError",
    -101: "NoNode",
    -102: "NoAuth",
    -103: "BadVersion",
    -108: "NoChildrenForEphemerals",
    -110: "NodeExists",
    -111: "NotEmpty",
    -112: "SessionExpired",
    -113: "InvalidCallback",
    -114: "InvalidACL",
    -115: "AuthFailed",
    -118: "SessionMoved",
    -119: "NotReadOnly",
    -120: "EphemeralOnLocalSession",
    -121: "NoWatcher",
    -122: "RequestTimeout",
    -123: "ReconfigDisabled",
    -124: "SessionClosedRequireSaslAuth",
    -125: "QuotaExceeded",
    -127: "ThrottledOp",
}
TIMEOUTS = frozenset((-7, -122))
SERVER_FAULTS = frozenset((-1, -2, -3, -4, -5, -13, -14, -127))
SESSION_EXPIRED, ROLLED_BACK = -112, -2

EVENTS = {
    -1: "none",
    1: "nodeCreated",
    2: "nodeDeleted",
    3: "nodeDataChanged",
    4: "nodeChildrenChanged",
    5: "dataWatchRemoved",
    6: "childWatchRemoved",
    7: "persistentWatchRemoved",
}
STATES = {
    0: "disconnected",
    3: "syncConnected",
    4: "authFailed",
    5: "connectedReadOnly",
    6: "saslAuthenticated",
    -112: "expired",
    7: "closed",
}

WORDS = frozenset(
    b"conf cons crst dirs dump envi gtmk hash icfg isro lead mntr orst reqs ruok "
    b"srst srvr stat stmk wchc wchp wchs".split()
)
