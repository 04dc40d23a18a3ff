"""The registry of probes: each is one question to the kernel, with its ladder of mechanisms, best first.

`choose` climbs down a ladder until a rung holds: every target of the rung has to attach. A probe that finds no
rung is missing, with the reason and what its absence costs; the recording goes on without it.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kubetape.bundle.manifest import ProbeStatus


@dataclass(frozen=True)
class Target:
    """One attachment. kind: 'tracing' (tp_btf; in the plain mode a raw tracepoint), 'raw' (always a raw tracepoint:
    its arguments may be NULL, or no sockets), 'plain' (a raw tracepoint
    needed in the plain mode only), 'fexit', 'kprobe', 'kretprobe', 'uprobe_multi' and 'uprobe'
    (loaded only: capture/tls.py attaches)."""

    kind: str
    function: str
    name: str
    optional: bool = False  # a kernel without it does the same by another target of the rung


@dataclass(frozen=True)
class Probe:
    """sources: files of bpf/; ladder: rungs, best first; cost: what a recording lacks without it."""

    name: str
    sources: tuple[str, ...]
    ladder: tuple[tuple[Target, ...], ...]
    cost: str
    counter: int | None = None  # its number in common.h, where losses are counted


def _tracing(*pairs: str) -> tuple[Target, ...]:
    return tuple(Target("tracing", function, name) for function, _, name in (pair.partition("@") for pair in pairs))


_INET_SEND = ("inet_sendmsg", "inet6_sendmsg")
_INET_RECEIVE = ("inet_recvmsg", "inet6_recvmsg")
_SENDPAGE = "inet_sendpage"  # sendfile, up to kernel 6.4; later it goes through sendmsg

# Programs of tls.c; capture/tls.py attaches each to the functions it is for.
TLS_PROGRAMS = (
    "openssl_read", "openssl_write", "openssl_read_ex", "openssl_write_ex", "gnutls_receive", "gnutls_send",
    "tls_handshake", "tls_free", "tls_return", "go_read", "go_write", "go_close", "go_return",
)  # fmt: skip

# In the order of attachment: what tells of a socket's birth comes before what uses it.
PROBES: tuple[Probe, ...] = (
    Probe(
        "process",
        ("process.c",),
        (
            _tracing(
                "process_exec@sched_process_exec", "process_fork@sched_process_fork", "process_exit@sched_process_exit"
            ),
        ),
        "processes that live shorter than the recording are missing, and how they ended",
        4,
    ),
    Probe("oom", ("process.c",), (_tracing("oom_kill@mark_victim"),), "out-of-memory kills show only as signal 9", 4),
    Probe(
        "connection",
        ("connection.c",),
        ((*_tracing("state_change@inet_sock_set_state"), Target("plain", "tcp_destroy", "tcp_destroy_sock")),),
        "no connection times, no connect results; the role of a connection is known from listening ports only",
        1,
    ),
    Probe(
        "tcp_event",
        ("tcp.c",),
        (_tracing("retransmit@tcp_retransmit_skb", "receive_reset@tcp_receive_reset"),),
        "no retransmissions and no resets received",
        2,
    ),
    Probe(
        "synack",
        ("tcp.c",),
        (_tracing("retransmit_synack@tcp_retransmit_synack"),),
        "retransmissions of SYN-ACK are missing",
        2,
    ),
    Probe(
        "reset_sent", ("drop.c",), ((Target("raw", "reset_sent", "tcp_send_reset"),),), "no resets sent by this node", 3
    ),
    Probe(
        "drop",
        ("drop.c",),
        ((Target("raw", "packet_dropped", "kfree_skb"),),),
        "packets dropped by the kernel, and why, are missing",
        3,
    ),
    Probe(
        "sched_slice",
        ("sched.c",),
        (_tracing("sched_switch@sched_switch", "sched_waking@sched_waking"),),
        "when threads ran, waited for a CPU and slept is missing: a request's time cannot be split",
        5,
    ),
    Probe(
        "block_io",
        ("block_io.c",),
        (_tracing("block_insert@block_rq_insert", "block_issue@block_rq_issue", "block_complete@block_rq_complete"),),
        "how long each device took for each request is missing: waits for disks have no device",
        6,
    ),
    Probe(
        "stack_sample",
        ("stack.c",),
        ((Target("perf", "stack_sample", "cpu-clock"),),),
        "which functions used the CPU is missing",
        8,
    ),
    Probe(
        "udp_peer",
        ("udp_peer.c",),
        ((Target("cgroup", "udp4_peer", "UDP4_RECVMSG"), Target("cgroup", "udp6_peer", "UDP6_RECVMSG")),),
        "datagrams received by unconnected sockets (DNS servers) have no sender",
    ),
    Probe(
        "socket_data",
        ("socket_data.c", "socket_fallback.c"),
        (
            _tracing("socket_send@sock_send_length", "socket_receive@sock_recv_length"),
            tuple(
                [Target("fexit", "fexit_send", name) for name in _INET_SEND]
                + [Target("fexit", "fexit_sendpage", _SENDPAGE, optional=True)]
                + [Target("fexit", "fexit_receive", name) for name in _INET_RECEIVE]
            ),
            tuple(
                [Target(kind, f"{kind}_send", name) for kind in ("kprobe", "kretprobe") for name in _INET_SEND]
                + [Target(kind, f"{kind}_send", _SENDPAGE, optional=True) for kind in ("kprobe", "kretprobe")]
                + [Target(kind, f"{kind}_receive", name) for kind in ("kprobe", "kretprobe") for name in _INET_RECEIVE]
            ),
        ),
        "no payload: no requests, no protocols, only the health of connections",
        0,
    ),
    Probe(
        "tls",
        ("tls.c",),
        tuple(
            tuple(Target(kind, function, function) for function in TLS_PROGRAMS) for kind in ("uprobe_multi", "uprobe")
        ),
        "what runs inside TLS is counted, but not read: handshakes and sizes only",
        7,
    ),
)

Attach = Callable[[Target], str]


@dataclass
class Choice:
    """The rung that held, as the manifest shows it; or none, and why each did not."""

    status: ProbeStatus
    reasons: list[str] = field(default_factory=list)


def choose(probe: Probe, attach: Attach, detach: Callable[[], None], allowed: Sequence[str] | None = None) -> Choice:
    """Attach the first rung of the ladder that holds.

    attach(target) returns the mechanism's name or raises OSError; detach() undoes what the present rung has
    attached so far. allowed: kinds that may be used (None: all).
    """
    reasons: list[str] = []
    missing = False
    for rung in probe.ladder:
        if allowed is not None and any(t.kind not in allowed for t in rung):
            continue
        mechanisms: list[str] = []
        try:
            for target in rung:
                try:
                    mechanisms.append(attach(target))
                except OSError:
                    if not target.optional:
                        raise
        except OSError as error:
            detach()
            missing = missing or error.errno == errno.ENOENT
            reasons.append(f"{target.name}: {error.strerror or error}".splitlines()[0])
            continue
        return Choice(ProbeStatus(probe.name, " ".join(dict.fromkeys(filter(None, mechanisms))), "attached"), reasons)
    status = ProbeStatus(
        probe.name,
        status="unavailable" if missing else "failed",
        reason="; ".join(reasons) or "no mechanism allowed",
        cost=probe.cost,
    )
    return Choice(status, reasons)
