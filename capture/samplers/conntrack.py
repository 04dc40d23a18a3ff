"""Connection tracking of one network namespace: its counters, and its entries with their translation.

Source of the formats: net/netfilter/nf_conntrack_standalone.c.
"""

from __future__ import annotations

from typing import Any

from kubetape.capture.samplers.files import read, read_int

Row = dict[str, Any]

# A busy gateway tracks a million connections; past this number only translated ones are kept.
ENTRIES_MAX = 50_000
FILE_MAX_BYTES = 256 << 20


def sample_row(net: str, is_host: bool, proc: str = "/proc") -> Row | None:
    """One conntrack_sample row without node, ts_ns and netns_id.

    net: `/proc/PID/net` of a process of the namespace. None where nothing is tracked there.
    """
    limit = read_int(f"{proc}/sys/net/netfilter/nf_conntrack_max")
    if limit is None:
        return None
    lines = (read(f"{net}/stat/nf_conntrack") or b"").splitlines()
    if len(lines) < 2:
        # Without the statistics file only the namespace we run in has a count.
        count = read_int(f"{proc}/sys/net/netfilter/nf_conntrack_count") if is_host else None
        return None if count is None else {"entry_count": count, "entry_max": limit}
    names = lines[0].split()
    places = {name: names.index(name) for name in (b"insert_failed", b"drop", b"early_drop") if name in names}
    totals = dict.fromkeys(places, 0)
    entries = 0
    for line in lines[1:]:
        values = line.split()
        entries = int(values[0], 16)  # the same in every CPU's line
        for name, place in places.items():
            if place < len(values):
                totals[name] += int(values[place], 16)
    return {
        "entry_count": entries,
        "entry_max": limit,
        "insert_failed_count": totals.get(b"insert_failed"),
        "drop_count": totals.get(b"drop"),
        "early_drop_count": totals.get(b"early_drop"),
    }


def entry_rows(net: str, entries_max: int = ENTRIES_MAX) -> tuple[list[Row], int]:
    """(conntrack rows without node, ts_ns and netns_id, entries left out for want of room).

    Translated entries first: the others say nothing that the connection itself does not say.
    """
    translated: list[Row] = []
    plain: list[Row] = []
    left_out = 0
    data = read(f"{net}/nf_conntrack") or b""
    for line in data[:FILE_MAX_BYTES].decode(errors="replace").splitlines():
        row = parse_entry(line)
        if row is None:
            continue
        kept = translated if _is_translated(row) else plain
        if len(kept) < entries_max:
            kept.append(row)
        else:
            left_out += 1
    room = entries_max - len(translated)
    return translated + plain[:room], left_out + max(0, len(plain) - room)


def parse_entry(line: str) -> Row | None:
    """One line of /proc/net/nf_conntrack, or of `conntrack -L`, which leaves the first two words out: the
    original tuple, then the reply tuple. None unless TCP or UDP."""
    words = line.split()
    if words[:1] in (["ipv4"], ["ipv6"]):
        del words[:2]
    if len(words) < 4 or words[0] not in ("tcp", "udp"):
        return None
    values: dict[str, list[str]] = {"src": [], "dst": [], "sport": [], "dport": []}
    for word in words[2:]:
        name, equals, value = word.partition("=")
        if equals and name in values:
            values[name].append(value)
    if any(len(v) < 2 for v in values.values()):
        return None
    return {
        "transport": words[0],
        "original_source_ip": _ip(values["src"][0]),
        "original_source_port": int(values["sport"][0]),
        "original_destination_ip": _ip(values["dst"][0]),
        "original_destination_port": int(values["dport"][0]),
        "reply_source_ip": _ip(values["src"][1]),
        "reply_source_port": int(values["sport"][1]),
        "reply_destination_ip": _ip(values["dst"][1]),
        "reply_destination_port": int(values["dport"][1]),
    }


def _ip(text: str) -> str:
    """The usual short form: the kernel writes all eight groups of an IPv6 address here."""
    if ":" not in text:
        return text
    import ipaddress

    return str(ipaddress.ip_address(text))


def _is_translated(row: Row) -> bool:
    return (
        row["original_source_ip"] != row["reply_destination_ip"]
        or row["original_destination_ip"] != row["reply_source_ip"]
        or row["original_source_port"] != row["reply_destination_port"]
        or row["original_destination_port"] != row["reply_source_port"]
    )
