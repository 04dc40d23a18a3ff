"""SQL statements without their values: the pattern that executions of one statement share.

Strategy: one regular expression finds what a value, a comment or a quoted name can be, everything else is copied;
then lists of values are folded. The folding follows the rules of pt-query-digest's fingerprint (percona-toolkit,
lib/QueryRewriter.pm), so that both tools group alike: keywords and names in lower case, `in(?+)`, `values(?+)`, one
row of a multi-row INSERT, `limit ?`, no ASC, repeated UNION parts once. Beyond it: `is null` stays, and each
dialect's quoting is obeyed.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

# Distinct texts remembered; at about 1 KB for text and pattern this is some 30 MB.
CACHE_ENTRIES = 32_768
MAX_DIGEST_CHARS = 1 << 16  # a statement is recognised by its head; the rest is values
MAX_PRETTY_CHARS = 20_000  # sqlglot takes about a second for 100,000 characters

_STRING = r"'(?:[^'\\]++|\\.|'')*+(?:'|\Z)"
_PLAIN_STRING = r"'(?:[^']++|'')*+(?:'|\Z)"  # the backslash is a letter like others
_DOUBLE = r'"(?:[^"\\]++|\\.|"")*+(?:"|\Z)'
_DOUBLE_NAME = r'"(?:[^"]++|"")*+(?:"|\Z)'
_NUMBER = (
    r"(?<![\w$@.])(?:0[xX][0-9a-fA-F]+|0[bB][01]+|\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?![\w$])"
    r"|(?<![\w)\]\"`.])\.\d+(?:[eE][-+]?\d+)?(?!\w)"
)
_BLOCK = r"/\*(?!!).*?(?:\*/|\Z)"
_NULL = r"(?<![\w.`\"])[nN][uU][lL][lL](?![\w.`\"])"
_BOOL = r"(?<![\w.`\"])(?:[tT][rR][uU][eE]|[fF][aA][lL][sS][eE])(?![\w.`\"])"


def _dialect(comments: str, names: str, values: str) -> re.Pattern[str]:
    """Group 1: a comment; 2: a quoted name whose case counts; 3: NULL; else: a value."""
    return re.compile(rf"({comments})|({names})|({_NULL})|{values}|{_NUMBER}", re.DOTALL)


_NO_NAME = r"(?!)"
_PATTERNS: dict[str, re.Pattern[str]] = {
    # MySQL 8.0 manual 9.7: `-- ` needs the blank; 9.1.1: both quotes make strings, introducers and x'', b'', n''.
    "mysql": _dialect(
        rf"{_BLOCK}|--(?=\s|\Z)[^\n]*|\#[^\n]*",
        _NO_NAME,
        rf"(?:(?<!\w)(?:[xXbBnN]|_[a-z0-9]+\s*))?(?:{_STRING}|{_DOUBLE})",
    ),
    # PostgreSQL 16 manual 4.1.2: E'', U&'', B'', X'', $tag$ $tag$; 4.1.5: comments.
    "postgresql": _dialect(
        rf"{_BLOCK}|--[^\n]*",
        rf"(?:(?<!\w)[uU]&)?{_DOUBLE_NAME}",
        rf"(?<!\w)[eE]{_STRING}|(?:(?<!\w)(?:[uU]&|[xXbBnN]))?{_PLAIN_STRING}"
        rf"|(?<![\w$])\$(?P<tag>[A-Za-z_]\w*|)\$.*?(?:\$(?P=tag)\$|\Z)|(?<![\w$])\$\d+|{_BOOL}",
    ),
    # Transact-SQL: N'', [name], "name".
    "tds": _dialect(
        rf"{_BLOCK}|--[^\n]*",
        rf"{_DOUBLE_NAME}|(?<![\w\]])\[(?:[^\]]++|\]\])*+(?:\]|\Z)",
        rf"(?:(?<!\w)[nN])?{_PLAIN_STRING}",
    ),
    "clickhouse": _dialect(rf"{_BLOCK}|--[^\n]*|\#[!\s][^\n]*", r'`[^`]*`|"[^"]*"', rf"{_STRING}|{_BOOL}"),
    # CQL: strings double the quote, $$ $$ strings, UUIDs and blobs are bare.
    "cassandra": _dialect(
        rf"{_BLOCK}|--[^\n]*|//[^\n]*",
        _DOUBLE_NAME,
        rf"{_PLAIN_STRING}|\$\$.*?(?:\$\$|\Z)|{_BOOL}"
        r"|(?<!\w)[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}(?!\w)",
    ),
}
_PATTERNS["generic"] = _PATTERNS["postgresql"]
_SQLGLOT_NAMES = {"postgresql": "postgres", "tds": "tsql", "generic": "", "cassandra": ""}

_KEPT = "\x00"  # stands for a quoted name while case and blanks are folded
_LIST = re.compile(r"\b(in|values?) ?\([?, ]*\)(?: ?, ?\([?, ]*\))*")
_ROW = r"\((?:[^()]++|\((?:[^()]++|\([^()]*+\))*+\))*+\)"
_ROWS = re.compile(rf"\b(values? ?{_ROW})(?: ?, ?{_ROW})+")
_ARRAY = re.compile(r"\barray ?\[[?, ]*\]")
_LIMIT = re.compile(r"\blimit \?(?: ?, ?\?| offset \?)?")
_SIGN = re.compile(
    r"([(,=<>*/%]|\b(?:then|else|when|between|and|or|not|limit|offset|in|select|like|by|values))( ?)[-+] ?\?"
)
_ASC = re.compile(r"(?<=\S) asc\b(?= ?(?:,|$|\)|limit|for|offset|nulls))")
_UNION = re.compile(r"( union(?: all)?) ")
_USE = re.compile(r"use \S+\Z")
_NULL_TEST = re.compile(r"(?:\bis|\bnot)\s+\Z", re.IGNORECASE)


@lru_cache(maxsize=CACHE_ENTRIES)
def digest(sql: str, dialect: str) -> tuple[str, str]:
    """(digest_id, pattern) of a statement: 16 hexadecimal digits that stand for the pattern, and the pattern.

    dialect: mysql, postgresql, tds, clickhouse, cassandra; others as generic.
    """
    pattern = make_pattern(sql[:MAX_DIGEST_CHARS], dialect)
    return hashlib.md5(pattern.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()[:16], pattern


def make_pattern(sql: str, dialect: str) -> str:
    """The statement with its values replaced, without the cache of `digest`."""
    names: list[str] = []

    def replace(match: re.Match[str]) -> str:
        group = match.lastindex
        if group == 1:
            return " "
        if group == 2:
            names.append(match[0])
            return _KEPT
        if group == 3 and _NULL_TEST.search(sql, max(0, match.start() - 16), match.start()):
            return match[0]
        return "?"

    if _KEPT in sql:
        sql = sql.replace(_KEPT, " ")
    text = _PATTERNS.get(dialect, _PATTERNS["generic"]).sub(replace, sql)
    text = " ".join(text.lower().split()).rstrip("; ")
    if names:
        text = "".join(piece + name for piece, name in zip(text.split(_KEPT), [*names, ""], strict=True))
    return _fold(text)


def _fold(text: str) -> str:
    if "?" in text:
        if "-" in text or "+" in text:
            text = _SIGN.sub(r"\1\2?", text)
        if "in" in text or "value" in text:
            text = _LIST.sub(r"\1(?+)", text)
            text = _ROWS.sub(r"\1", text)
        if "limit" in text:
            text = _LIMIT.sub("limit ?", text)
        if "array" in text:
            text = _ARRAY.sub("array[?+]", text)
    if " asc" in text and "order by" in text:
        text = _ASC.sub("", text)
    if " union " in text:
        text = _fold_union(text)
    if text.startswith("call "):
        text = text.partition("(")[0].rstrip()
    if text.startswith("use "):
        text = _USE.sub("use ?", text)
    return text


def _fold_union(text: str) -> str:
    """`select .. union select ..` of equal parts as one part with a remark, as pt-query-digest writes it."""
    parts = _UNION.split(text)
    kept = parts[0]
    last, repeated = parts[0], ""
    for joint, part in zip(parts[1::2], parts[2::2], strict=True):
        if part == last:
            repeated = f" /*repeat{joint}*/"
            continue
        kept += repeated + joint + " " + part
        last, repeated = part, ""
    return kept + repeated


def pretty(sql: str, dialect: str = "generic") -> str:
    """The statement as a person would lay it out; the text itself where it cannot be parsed (cut, other grammar)."""
    if len(sql) > MAX_PRETTY_CHARS or sql.endswith("…"):
        return sql
    import logging

    import sqlglot

    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    try:
        parts = sqlglot.transpile(sql, read=_SQLGLOT_NAMES.get(dialect, dialect), identity=True, pretty=True)
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return sql
    return ";\n".join(parts) if parts else sql
