"""Packets and tokens of TDS: [MS-TDS] 2.2.3 and 2.2.7 (SQL Server), "TDS 5.0 Functional Specification" (Sybase ASE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SQL_BATCH, OLD_LOGIN, RPC, RESULT, ATTENTION, BULK = 1, 2, 3, 4, 6, 7
TRANSACTION, QUERY5, LOGIN7, SSPI, PRELOGIN = 14, 15, 16, 17, 18
OPERATIONS: Final = {
    SQL_BATCH: "SQLBatch",
    OLD_LOGIN: "Login",
    RPC: "RPC",
    BULK: "BulkLoad",
    TRANSACTION: "TransMgrReq",
    QUERY5: "SQLBatch",
    LOGIN7: "Login",
    SSPI: "SSPI",
    PRELOGIN: "PreLogin",
}
END_OF_MESSAGE: Final = 1
# [MS-TDS] 2.2.6.6: procedures that are called by number.
PROCEDURES: Final = {
    1: "Sp_Cursor",
    2: "Sp_CursorOpen",
    3: "Sp_CursorPrepare",
    4: "Sp_CursorExecute",
    5: "Sp_CursorPrepExec",
    6: "Sp_CursorUnprepare",
    7: "Sp_CursorFetch",
    8: "Sp_CursorOption",
    9: "Sp_CursorClose",
    10: "Sp_ExecuteSql",
    11: "Sp_Prepare",
    12: "Sp_Execute",
    13: "Sp_PrepExec",
    14: "Sp_PrepExecRpc",
    15: "Sp_Unprepare",
}


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet. body: behind its header, as far as captured; last: it ends its message."""

    kind: int
    last: bool
    body: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tokens of a result say. error: number and text of the first one; rows: sent or affected, if counted."""

    error: tuple[int, str] | None = None
    severity: int = 0
    rows: int | None = None
    is_login: bool = False
