"""Header fields with some of them not known: which pseudo header an unseen table entry is, and what is plausible.

Knowledge gained later on the connection is used backwards, as inference: a client writes its pseudo headers
always in the same order, and an entry that is used everywhere has the only value ever seen there.
"""

from __future__ import annotations

from typing import Final

from kubetape.analyze.protocols.http2.hpack import Field, Unknown

REQUEST_PSEUDO: Final = frozenset({":method", ":scheme", ":path", ":authority", ":protocol"})


def as_headers(fields: list[Field]) -> dict[str, str]:
    """Known fields by name; repeated ones joined as RFC 9110, section 5.3 allows."""
    headers: dict[str, str] = {}
    for field in fields:
        if isinstance(field, tuple):
            name, value = field
        elif field.name is not None and field.value is not None:
            name, value = field.name, field.value
        else:
            continue
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def has_unknown(fields: list[Field]) -> bool:
    """Whether a field's name or value was not seen."""
    return any(isinstance(field, Unknown) and field.value is None for field in fields)


def is_plausible(fields: list[Field], client: bool) -> bool:
    """Whether known fields could be a block of this side: pseudo headers first, once each, and with sane values."""
    seen: set[str] = set()
    regular = False
    for field in fields:
        name = field[0] if isinstance(field, tuple) else field.name
        if name is None:
            continue
        value = field[1] if isinstance(field, tuple) else field.value
        if not name.startswith(":"):
            regular = True
            continue
        if regular or name in seen or (name in REQUEST_PSEUDO) != client:
            return False
        seen.add(name)
        if name == ":path" and value is not None and value[:1] not in ("/", "*"):
            return False
        if name == ":status" and (value is None or len(value) != 3 or not value.isdigit()):
            return False
    if client and seen and not has_unknown(fields):
        return ":method" in seen and (":path" in seen or ":authority" in seen)
    return client or not seen or seen == {":status"}


def pseudo_order(fields: list[Field]) -> tuple[str, ...] | None:
    """The order of the pseudo headers of a request block that is wholly known."""
    names = []
    for field in fields:
        if not isinstance(field, tuple):
            return None
        if not field[0].startswith(":"):
            break
        names.append(field[0])
    return tuple(names) if ":path" in names else None


def place_of_path(fields: list[Field], order: tuple[str, ...]) -> Unknown | None:
    """The unknown field that is :path if this client keeps to `order`; None: it does not, or :path is known."""
    if len(fields) < len(order):
        return None
    found: Unknown | None = None
    for field, name in zip(fields, order, strict=False):
        if isinstance(field, tuple):
            if field[0] != name:
                return None
        elif name == ":path" and field.value is None:
            found = field
    return found


def name_literals(fields: list[Field]) -> None:
    """Name unknown fields whose value gives them away: a path among the pseudo headers."""
    known = {field[0] for field in fields if isinstance(field, tuple)}
    for field in fields:
        if isinstance(field, tuple):
            if not field[0].startswith(":"):
                return
        elif field.name is None and field.value is not None and field.value[:1] == "/" and ":path" not in known:
            field.name = ":path"
            return
