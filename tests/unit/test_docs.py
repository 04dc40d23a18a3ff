"""The reference pages are what the schema and the SQL headers say, and the README names commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kubetape.cli import COMMANDS
from tools.reference import PAGES

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", PAGES)
def test_reference_pages_are_current(name: str) -> None:
    assert (ROOT / "docs" / name).read_text("utf8") == PAGES[name](), "run python -m tools.reference"


def test_commands_in_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf8")
    named = set(re.findall(r"^ *kubetape (\w+)", text, re.M))
    modules = {name for name, (module, _) in COMMANDS.items() if (ROOT / "kubetape/commands" / f"{module}.py").exists()}
    assert named
    assert named <= modules
