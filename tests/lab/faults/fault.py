"""What a fault is, and the answer a report on it must give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.lab.shop import Shop


@dataclass(frozen=True)
class Answer:
    """What a finding must say to be right: one of `rules`, and every one of `words` in its title, scope or summary.

    `a|b` among the words is either of the two.
    `words` may name pods, which exist only in a running shop; so an Answer is made from one.
    """

    rules: tuple[str, ...]
    words: tuple[str, ...]

    def is_given_by(self, finding: dict[str, Any]) -> bool:
        """Does this row of `finding` say so?"""
        said = " ".join(str(finding[part]) for part in ("scope", "title", "summary"))
        return finding["rule"] in self.rules and all(any(w in said for w in word.split("|")) for word in self.words)


@dataclass(frozen=True)
class Fault:
    """name: on the command line; apply, remove: switch it on and off; answer: what the report must say."""

    name: str
    title: str
    apply: Callable[[Shop], None]
    remove: Callable[[Shop], None]
    answer: Callable[[Shop], Answer]
