"""Route templates: the part of a path that names an endpoint, with the parts that name a thing left out.

Two looks. `route_template` judges every segment by its form alone (numbers, UUIDs, hashes, dates ...).
`collapse_routes` then sees all routes of one host together: a place in the path that has very many different
values is an id, whatever its form.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache

MAX_ROUTE_CHARS = 512  # a label, not the address: `statement` keeps the whole target
MAX_SEGMENTS = 32  # deeper paths are file trees: the rest becomes {*}
# A place in the path with more different values than this is taken for an id. Services have fewer endpoints
# below one prefix; static file folders have more, and are better summed up too.
MAX_VALUES_PER_PLACE = 64

_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}(?:T[\d:.]{5,15}(?:Z|[+-]\d{2}:?\d{2})?)?|(?:19|20)\d{2}[01]\d[0-3]\d")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)*")
_HEX = re.compile(r"(?=[a-fA-F]*\d)(?:0x)?[0-9a-fA-F]{8,}")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_EMAIL = re.compile(r"[^@/\s]{1,64}@[A-Za-z0-9.-]+\.[A-Za-z]{2,24}")
_IP = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?")
# A word with its number: order-1234, item_77, v2 stays (a version is part of the name).
_NUMBERED = re.compile(r"([A-Za-z][A-Za-z_.-]*[-_.:])(\d{2,}|[0-9a-fA-F]*\d[0-9a-fA-F]{6,})")
# Names that Kubernetes makes: deployment-<pod template hash>-<random>, statefulset-0 stays.
_POD = re.compile(r"([a-z0-9.-]+?)-(?=[a-z0-9]*\d)[a-z0-9]{8,10}-[a-z0-9]{5}")
_TOKEN = re.compile(r"[A-Za-z0-9_~%+=-]{16,}")
_EXTENSION = re.compile(r"(.+)(\.[A-Za-z][A-Za-z0-9]{0,4}|\.(?:tar|min)\.[a-z0-9]{1,4}|\.mp[34]|\.7z)")
_WHOLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (_UUID, "{uuid}"),
    (_IP, "{ip}"),
    (_DATE, "{date}"),
    (_NUMBER, "{id}"),
    (_ULID, "{id}"),
    (_HEX, "{hash}"),
    (_EMAIL, "{email}"),
)


def path_of(target: str) -> str:
    """The path of a request target in any form (RFC 9112 section 3.2): no scheme, host, query, fragment."""
    if target[:1] != "/":
        scheme = target.find("://")
        if scheme > 0:
            slash = target.find("/", scheme + 3)
            query = target.find("?", scheme + 3)
            target = target[slash:] if slash > 0 and (query < 0 or slash < query) else "/"
    for mark in ("?", "#", ";jsessionid="):
        if (end := target.find(mark)) >= 0:
            target = target[:end]
    return target


@lru_cache(maxsize=8192)
def route_template(target: str) -> str:
    """The route of a request target: `/users/42/orders?x=1` -> `/users/{id}/orders`.

    File extensions stay (`/img/{hash}.png`); `*` and authorities (CONNECT) come back as they are.
    """
    path = path_of(target)
    if path[:1] != "/":
        return path[:MAX_ROUTE_CHARS]
    segments = path.split("/")
    if len(segments) > MAX_SEGMENTS:
        segments = [*segments[:MAX_SEGMENTS], "{*}"]
    return "/".join([_segment(s) if s else s for s in segments])[:MAX_ROUTE_CHARS]


@lru_cache(maxsize=16384)
def _segment(segment: str) -> str:
    if segment.isalpha() and len(segment) < 24:
        return segment
    for pattern, name in _WHOLE:
        if pattern.fullmatch(segment):
            return name
    if (found := _EXTENSION.fullmatch(segment)) is not None:
        stem = _segment(found[1])
        return stem + found[2] if stem != found[1] else segment
    if (found := _POD.fullmatch(segment)) is not None:
        return found[1] + "-{id}"
    if (found := _NUMBERED.fullmatch(segment)) is not None:
        return found[1] + "{id}"
    if _TOKEN.fullmatch(segment) and _looks_random(segment):
        return "{token}"
    return segment


def _looks_random(text: str) -> bool:
    """Whether a long word is machine-made: digits between letters, or case that changes without a reason.

    `readme-for-developers`, `getCustomerByName`, `v1alpha1` are names; `dGhpcyBpcyBh`, `AKIA4XQ7...` are not.
    """
    parts = re.split(r"[-_.]", text)
    if max(len(part) for part in parts) < 10:
        return len(text) >= 32 and sum(c.isdigit() for c in text) * 5 >= len(text)
    digits = len(re.findall(r"\d+", text))
    changes = len(re.findall(r"[a-z][A-Z]|[A-Z]{2}[a-z]|[A-Za-z]\d", text))
    return digits >= 3 or changes * 4 >= len(text) or ("%" in text and changes * 8 >= len(text))


def collapse_routes(routes: Iterable[str]) -> Mapping[str, str]:
    """Route -> shorter route for the routes of one host: places with too many different values become {*}.

    routes: templates of `route_template`; repetitions do not matter. The answer has only routes that change.
    """
    split = {route: route.split("/") for route in set(routes) if route[:1] == "/"}
    names = {route: list(parts) for route, parts in split.items()}
    depth = max((len(parts) for parts in split.values()), default=0)
    for place in range(1, depth):
        values: dict[tuple[str, ...], Counter[str]] = {}
        for parts in names.values():
            if place < len(parts):
                values.setdefault(tuple(parts[:place]), Counter())[parts[place]] += 1
        many = {prefix for prefix, seen in values.items() if len(seen) > MAX_VALUES_PER_PLACE}
        if not many:
            continue
        for parts in names.values():
            if place < len(parts) and tuple(parts[:place]) in many:
                parts[place] = _star(parts[place])
    return {route: new for route, parts in names.items() if (new := "/".join(parts)) != route}


def _star(segment: str) -> str:
    found = _EXTENSION.fullmatch(segment)
    return "{*}" + found[2] if found else "{*}"
