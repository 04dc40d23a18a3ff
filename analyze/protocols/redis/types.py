"""Redis: what is known of commands (redis.io/docs/latest/commands), and the frames."""

from __future__ import annotations

# Commands whose first argument is no key.
NO_KEY = frozenset(
    b"""ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DISCARD ECHO EXEC
    FAILOVER FLUSHALL FLUSHDB FUNCTION HELLO INFO LASTSAVE LATENCY LOLWUT MODULE MONITOR MULTI PING
    PSYNC PUBSUB QUIT RANDOMKEY READONLY READWRITE REPLCONF REPLICAOF RESET ROLE SAVE SCAN SCRIPT SELECT
    SENTINEL SHUTDOWN SLAVEOF SLOWLOG SWAPDB SYNC TIME UNWATCH WAIT WAITAOF""".split()
)
# Commands with the first key elsewhere: index of the argument (the command is 0).
KEY_AT = {
    **dict.fromkeys((b"BITOP", b"OBJECT", b"XGROUP", b"XINFO", b"MEMORY", b"LMPOP", b"ZMPOP"), 2),
    **dict.fromkeys((b"SINTERCARD", b"ZINTERCARD", b"ZDIFF", b"ZUNION", b"ZINTER"), 2),
    **dict.fromkeys((b"BLMPOP", b"BZMPOP", b"MIGRATE"), 3),
}
WITH_NUMKEYS = frozenset({b"EVAL", b"EVALSHA", b"EVAL_RO", b"EVALSHA_RO", b"FCALL", b"FCALL_RO"})
SUBSCRIBES = frozenset({b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE"})
UNSUBSCRIBES = frozenset({b"UNSUBSCRIBE", b"PUNSUBSCRIBE", b"SUNSUBSCRIBE"})
SUBSCRIPTION = SUBSCRIBES | UNSUBSCRIBES
PUSHES = frozenset({b"message", b"pmessage", b"smessage"})
# Words a connection may begin with when commands are typed as lines.
INLINE = frozenset(
    b"""ACL APPEND AUTH BGSAVE BLPOP BRPOP CLIENT CLUSTER COMMAND CONFIG DBSIZE DEBUG DECR DEL DISCARD ECHO
    EVAL EXEC EXISTS EXPIRE FLUSHALL FLUSHDB GET GETSET HDEL HELLO HGET HGETALL HMGET HMSET HSET INCR
    INFO KEYS LASTSAVE LLEN LPOP LPUSH LRANGE MEMORY MGET MONITOR MSET MULTI PERSIST PING PSUBSCRIBE
    PSYNC PTTL PUBLISH QUIT REPLCONF RESET ROLE RPOP RPUSH SADD SAVE SCAN SCARD SELECT SET SETEX SETNX
    SHUTDOWN SLOWLOG SMEMBERS SREM SUBSCRIBE SYNC TIME TTL TYPE UNSUBSCRIBE UNWATCH WATCH XADD ZADD
    ZCARD ZRANGE ZREM""".split()
)


class Command:
    """A command: its name in upper case, and the arguments that were captured (the name first), values cut."""

    __slots__ = ("arguments", "name", "whole")

    def __init__(self, name: bytes, arguments: list[bytes], whole: bool) -> None:
        self.name, self.arguments, self.whole = name, arguments, whole


class Value:
    """A reply, or the next part of one.

    kind: its type byte; text: of simple strings and errors, number or length of others; first: first element of an
    aggregate; errors: errors inside; done: its last byte was read.
    """

    __slots__ = ("count", "done", "errors", "first", "kind", "second", "text")

    def __init__(self, kind: int, text: bytes) -> None:
        self.kind, self.text = kind, text
        self.first: bytes | None = None
        self.second: bytes | None = None
        self.errors = 0
        self.count = 0
        self.done = True


class Blank:
    """Bytes that ask nothing: an empty line, the newlines a master sends while it prepares a snapshot."""

    __slots__ = ()


class Snapshot:
    """Bytes of the snapshot (RDB) of a full resynchronisation."""

    __slots__ = ("done",)

    def __init__(self, done: bool) -> None:
        self.done = done


BLANK = Blank()
