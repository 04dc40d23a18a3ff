"""The faults the lab can make, each with its right answer.

A fault is one entry of its module's FAULTS: how it is switched on and off in a running shop, and what a report on a
recording of it must say. A new fault is a pair of functions and one entry.
"""

from __future__ import annotations

from tests.lab.errors import LabError
from tests.lab.faults import chain, database, network, postgresql, reach, resources, service, statements
from tests.lab.faults.fault import Answer, Fault

__all__ = ["FAULTS", "Answer", "Fault", "named"]

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for module in (network, database, service, resources, postgresql, statements, chain, reach)
    for fault in module.FAULTS
}


def named(names: str) -> list[Fault]:
    """The faults of a comma-separated list. Raises LabError for a name nobody knows."""
    chosen = [name for name in names.split(",") if name]
    if unknown := [name for name in chosen if name not in FAULTS]:
        raise LabError(f"no fault called {', '.join(unknown)}; there are: {', '.join(FAULTS)}")
    return [FAULTS[name] for name in chosen]
