"""The faults the lab can make, each with its right answer.

A fault is one entry of FAULTS: how it is switched on and off in a running shop, and what a report on a
recording of it must say. A new fault is a pair of functions and one entry, here or in a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.lab.errors import LabError

if TYPE_CHECKING:
    from tests.lab.shop import Shop

LOSS_PERCENT = 5
EXTRA_MS = 80
SLOW_REPLICA = 2


@dataclass(frozen=True)
class Answer:
    """What a finding must say to be right: its rule, and every one of `words` in its title, scope or summary.

    `words` may name pods, which exist only in a running shop; so an Answer is made from one.
    """

    rule: str
    words: tuple[str, ...]

    def is_given_by(self, finding: dict[str, Any]) -> bool:
        """Does this row of `finding` say so?"""
        said = " ".join(str(finding[part]) for part in ("scope", "title", "summary"))
        return finding["rule"] == self.rule and all(word in said for word in self.words)


@dataclass(frozen=True)
class Fault:
    """name: on the command line; apply, remove: switch it on and off; answer: what the report must say."""

    name: str
    title: str
    apply: Callable[[Shop], None]
    remove: Callable[[Shop], None]
    answer: Callable[[Shop], Answer]


# ---- lossy-link ---------------------------------------------------------------------------------------


def _lose_packets(shop: Shop) -> None:
    # On arrival, not on sending: a local drop on the way out is told to the sender's TCP at once.
    gateway = shop.one("gateway")
    replicas = shop.of("product")
    for pod in replicas:
        pod.nft(_loss_rules(gateway.ip))
    gateway.nft(_loss_rules(", ".join(pod.ip for pod in replicas)))


def _loss_rules(sources: str) -> str:
    drop = f"ip saddr {{ {sources} }} numgen random mod 100 < {LOSS_PERCENT} drop"
    hook = "type filter hook input priority -10"
    return f"table inet lab_loss {{\n chain arrive {{\n {hook};\n {drop}\n }}\n}}\n"


def _stop_losing_packets(shop: Shop) -> None:
    for pod in [shop.one("gateway"), *shop.of("product")]:
        pod.nft("delete table inet lab_loss")


# ---- slow-sql -----------------------------------------------------------------------------------------


def _join_without_index(shop: Shop) -> None:
    for pod in shop.of("product"):
        shop.control(pod, slow_sql=True)


def _join_with_index(shop: Shop) -> None:
    for pod in shop.of("product"):
        shop.control(pod, slow_sql=None)


# ---- slow-replica -------------------------------------------------------------------------------------


def _slow_one_replica(shop: Shop) -> None:
    shop.control(shop.of("product")[SLOW_REPLICA], extra_ms=EXTRA_MS)


def _speed_replica_up(shop: Shop) -> None:
    shop.control(shop.of("product")[SLOW_REPLICA], extra_ms=None)


FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault(
            "lossy-link",
            f"the network between gateway and product loses {LOSS_PERCENT} % of the packets",
            _lose_packets,
            _stop_losing_packets,
            lambda _shop: Answer("lossy-link", ("shop/gateway", "shop/product")),
        ),
        Fault(
            "slow-replica",
            f"one of the product replicas takes {EXTRA_MS} ms longer for everything",
            _slow_one_replica,
            _speed_replica_up,
            lambda shop: Answer("slow-replica", (shop.of("product")[SLOW_REPLICA].name,)),
        ),
        Fault(
            "slow-sql",
            "product asks the database for a join of three tables without an index",
            _join_without_index,
            _join_with_index,
            lambda _shop: Answer("slow-sql-statement", ("join review", "shop/mysql", "shop/product")),
        ),
    )
}


def named(names: str) -> list[Fault]:
    """The faults of a comma-separated list. Raises LabError for a name nobody knows."""
    chosen = [name for name in names.split(",") if name]
    if unknown := [name for name in chosen if name not in FAULTS]:
        raise LabError(f"no fault called {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    return [FAULTS[name] for name in chosen]
