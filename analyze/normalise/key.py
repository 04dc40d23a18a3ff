"""Keys of caches without the parts that name one thing: `user:42:cart` becomes `user:{id}:cart`."""

from __future__ import annotations

import re
from functools import lru_cache

CACHE_ENTRIES = 65_536  # distinct keys remembered: some 20 MB

_UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
_MAIL = r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,63}"
# Digits of at least 8 places in base 16, with a decimal digit and a letter: hashes and object ids.
_HEX = r"(?<![A-Za-z0-9])(?=[a-fA-F]*\d)[0-9a-fA-F]{8,}(?![A-Za-z0-9])"
# Tokens: long, letters of both cases or digits mixed in.
_TOKEN = r"(?<![A-Za-z0-9])(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z0-9]{16,}(?![A-Za-z0-9])"
_NUMBER = r"\d+(?:\.\d+)*(?![A-Za-z])"  # `user42` and `42`, not the `2` of `b2b`
_ID = re.compile(f"{_UUID}|{_MAIL}|{_HEX}|{_TOKEN}|{_NUMBER}")
_VERSION = re.compile(r"(?:^|[^A-Za-z0-9])[vV]\Z")


@lru_cache(maxsize=CACHE_ENTRIES)
def key_pattern(key: str) -> str:
    """The pattern of a key: UUIDs, numbers, hashes, tokens and mail addresses become {id}; `v2` stays."""
    return _ID.sub(lambda m: m[0] if _VERSION.search(key, 0, m.start()) else "{id}", key)
