"""What faults with services of their own have in common: small services, who asks them, and taking all away again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tests.lab import APPS

if TYPE_CHECKING:
    from tests.lab.pods import Pod
    from tests.lab.shop import Shop

HTTP = 80
Command = Callable[["Pod"], Sequence[str]]


def app(name: str, *arguments: object) -> Command:
    """One of the lab's programs."""
    return lambda _pod: [sys.executable, str(APPS / f"{name}.py"), *map(str, arguments)]


def step(do: str, *more: object, **arguments: object) -> Command:
    """A service that does one thing for each request, see apps/step.py."""
    return lambda pod: app("step", "--port", pod.port, "--do", do, "--with", json.dumps(arguments), *more)(pod)


def serve(shop: Shop, name: str, command: Command, replicas: int = 2, port: int | None = HTTP) -> list[Pod]:
    """A Deployment of the shop's."""
    pods = shop.plan(name, port, replicas)
    shop.add(pods, command)
    return pods


def visit(shop: Shop, *urls: str, rate: float, **options: object) -> None:
    """Visitors in the load pod, see apps/ask.py."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = app("ask", *urls, "--rate", rate, *words)
    load = shop.one("load")
    shop.helpers[f"visit {urls[0]}"] = load.spawn(shop.tree, command(load), shop.folder / "visit.log")


def end(shop: Shop, *names: str) -> None:
    """Stop helpers; without a name, all visitors."""
    for name in names or [name for name in shop.helpers if name.startswith("visit ")]:
        process = shop.helpers.pop(name)
        process.terminate()
        process.wait()


def without(*apps: str) -> Callable[[Shop], None]:
    """How a fault that only added pods and visitors is taken back."""

    def remove(shop: Shop) -> None:
        end(shop)
        shop.take_away(*apps)

    return remove
