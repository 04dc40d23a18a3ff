"""Frames of the MongoDB wire protocol, and its numbers."""

from __future__ import annotations

from typing import Any, NamedTuple


class Command(NamedTuple):
    """A message that asks. name: the command, or the legacy operation's word; one_way: no reply will come."""

    request_id: int
    name: str | None
    resource: str | None
    statement: str | None
    one_way: bool
    comment: dict[str, str]
    detail: dict[str, Any]


class Answer(NamedTuple):
    """A message that answers `response_to`. ok: None where it was not seen; more: further replies follow unasked."""

    request_id: int
    response_to: int
    ok: bool | None
    code: int | None
    message: str | None
    rows: int | None
    affected: int | None
    more: bool
    detail: dict[str, Any]


REPLY, OLD_MSG, UPDATE, INSERT, QUERY, GET_MORE, DELETE, KILL_CURSORS = 1, 1000, 2001, 2002, 2004, 2005, 2006, 2007
COMMAND, COMMAND_REPLY, COMPRESSED, MSG = 2010, 2011, 2012, 2013
REQUEST_OPS = frozenset((UPDATE, INSERT, QUERY, GET_MORE, DELETE, KILL_CURSORS, COMMAND, COMPRESSED, MSG))
REPLY_OPS = frozenset((REPLY, COMMAND_REPLY, COMPRESSED, MSG))
LEGACY_WRITES = {UPDATE: "update", INSERT: "insert", DELETE: "delete", KILL_CURSORS: "killCursors"}

# OP_MSG flagBits: bits 0 to 15 that a receiver does not know are an error, 16 and up may be ignored.
CHECKSUM, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16

COMPRESSORS = {0: "noop", 1: "snappy", 2: "zlib", 3: "zstd"}

# error_codes.yml of the server: what is not the caller's fault.
TIMEOUT_CODES = frozenset((24, 50, 64, 89, 202, 262, 290, 46841))
_SERVER = (
    "1 6 7 8 43 56 63 82 83 84 85 91 112 117 124 125 128 129 133 134 136 138 140 141 142 146 147 148 "
    "149 150 151 152 153 175 176 189 190 191 222 226 233 234 235 236 242 243 244 9001 10107 10334 11600 "
    "11602 13388 13435 13436 14031 17280 28799 "
)
SERVER_CODES = frozenset(int(code) for code in _SERVER.split())

# Commands whose first value is the name of a collection.
_ON_COLLECTION = (
    "find insert update delete aggregate count distinct findAndModify findandmodify create drop "
    "createIndexes listIndexes dropIndexes deleteIndexes collStats collstats mapReduce mapreduce "
    "geoNear geoSearch group collMod validate compact reIndex convertToCapped cloneCollectionAsCapped "
    "dataSize killCursors planCacheClear planCacheListFilters planCacheSetFilter planCacheClearFilters "
    "parallelCollectionScan bulkWrite createSearchIndexes "
)
ON_COLLECTION = frozenset(_ON_COLLECTION.split())
# The server redacts these itself.
SECRET_KEYS = frozenset((b"payload", b"pwd", b"speculativeAuthenticate", b"key"))
_SECRET = "saslStart saslContinue authenticate createUser updateUser hello isMaster ismaster copydb"
SECRET_COMMANDS = frozenset(_SECRET.split())
# Bookkeeping of sessions and the cluster: the same in every command, and never what it does.
NOISE_KEYS = frozenset((b"lsid", b"$clusterTime", b"signature"))
