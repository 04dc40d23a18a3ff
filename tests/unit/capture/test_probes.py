"""The ladder: the first rung that holds is taken, a probe without one degrades the recording."""

from __future__ import annotations

import errno

import pytest

from kubetape.capture.probes import PROBES, Probe, Target, choose

SOCKET_DATA = next(p for p in PROBES if p.name == "socket_data")


class Kernel:
    """A kernel that accepts some kinds of mechanism, and remembers what is attached."""

    def __init__(self, *kinds: str, absent: tuple[str, ...] = ()) -> None:
        self.kinds, self.absent = kinds, absent
        self.attached: list[str] = []

    def attach(self, target: Target) -> str:
        if target.name in self.absent:
            raise OSError(errno.ENOENT, f"this kernel has no {target.name}")
        if target.kind not in self.kinds:
            raise OSError(errno.EPERM, f"{target.kind} refused")
        self.attached.append(target.name)
        return f"{target.kind}:{target.name}"

    def detach(self) -> None:
        self.attached.clear()


@pytest.mark.parametrize(
    ("kinds", "absent", "chosen"),
    [
        (("tracing", "fexit", "kprobe", "kretprobe"), (), "tracing:sock_send_length"),
        (("tracing", "fexit", "kprobe", "kretprobe"), ("sock_recv_length",), "fexit:inet_sendmsg"),
        (("tracing", "kprobe", "kretprobe"), ("sock_send_length",), "kprobe:inet_sendmsg"),
    ],
)
def test_the_first_rung_that_holds_is_taken(kinds: tuple[str, ...], absent: tuple[str, ...], chosen: str) -> None:
    kernel = Kernel(*kinds, absent=absent)
    status = choose(SOCKET_DATA, kernel.attach, kernel.detach).status
    assert status.status == "attached"
    assert status.mechanism.split()[0] == chosen
    # Nothing of a rung that failed half-way is left.
    assert len({name.partition(":")[0] for name in status.mechanism.split()}) <= 2
    assert "sock_send_length" not in kernel.attached or not absent


def test_without_any_rung_the_probe_says_why_and_what_it_costs() -> None:
    kernel = Kernel(absent=("sock_send_length",))
    status = choose(SOCKET_DATA, kernel.attach, kernel.detach).status
    assert (status.status, status.mechanism) == ("unavailable", "")
    assert "this kernel has no sock_send_length" in status.reason
    assert "kprobe refused" in status.reason
    assert status.cost.startswith("no payload")
    assert kernel.attached == []


def test_mechanisms_can_be_forbidden() -> None:
    kernel = Kernel("tracing", "kprobe", "kretprobe")
    status = choose(SOCKET_DATA, kernel.attach, kernel.detach, allowed=("kprobe", "kretprobe")).status
    assert status.mechanism.startswith("kprobe:inet_sendmsg")


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: p.name)
def test_every_probe_names_its_cost_and_its_functions_exist(probe: Probe) -> None:
    from kubetape.capture.layouts import bpf_source

    assert probe.cost
    text = "".join(bpf_source(name) for name in probe.sources)
    for rung in probe.ladder:
        for target in rung:
            owner = text + bpf_source("connection.c")
            assert f"int {target.function}(" in owner
