"""The shape of the repository: the four links, and imports that point one way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("analyze", "bpf", "capture", "reports")

# Area -> the areas of kubetape it may import from, its own included.
ALLOWED = {
    "errors": {"errors"},
    "bundle": {"bundle", "errors"},
    "capture": {"capture", "bundle", "errors"},
    "analyze": {"analyze", "bundle", "errors"},
    "reports": {"reports", "analyze", "bundle", "errors"},
    "commands": {"commands", "capture", "analyze", "reports", "bundle", "errors"},
    "cli": {"cli", "commands", "errors"},
    "__main__": {"cli"},
    "__init__": set(),
}
# The analyzer's side must install and run without the recorder's libraries.
RECORDER_ONLY = {"bcc", "kubernetes"}
HEAVY = {"numpy", "pyarrow", "duckdb", "matplotlib", "jinja2", "sqlglot"}


def area_of(path: Path) -> str:
    """The area a file of the repository belongs to: its top folder, or its part of kubetape/."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "kubetape" else parts[0]


def sources() -> Iterator[Path]:
    """Every module of kubetape, once, under its real path (os.walk follows no links)."""
    for folder in ("kubetape", *LINKED):
        for directory, _, names in os.walk(ROOT / folder):
            yield from (Path(directory) / name for name in sorted(names) if name.endswith(".py"))


def imported_names(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything a source imports, at the top or inside a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            # `from kubetape import capture` names the area in the alias.
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def wrong_imports(area: str, source: str) -> list[str]:
    """What `source`, standing in `area`, imports but may not; one line each."""
    wrong = []
    for line, name in imported_names(source):
        parts = name.split(".")
        if parts[0] == "kubetape" and len(parts) > 1 and parts[1] in ALLOWED and parts[1] not in ALLOWED[area]:
            wrong.append(f"line {line}: {area} imports {name}")
        if parts[0] in RECORDER_ONLY and area in {"analyze", "reports", "bundle"}:
            wrong.append(f"line {line}: {area} imports {name}")
    return wrong


@pytest.mark.parametrize("name", LINKED)
def test_the_package_links_to_the_top_folder(name: str) -> None:
    link = ROOT / "kubetape" / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"


def test_imports_point_one_way() -> None:
    files = list(sources())
    assert len(files) > 10
    wrong = [f"{p.relative_to(ROOT)} {w}" for p in files for w in wrong_imports(area_of(p), p.read_text())]
    assert wrong == []


@pytest.mark.parametrize(
    ("area", "source"),
    [
        ("capture", "from kubetape.analyze import streams"),
        ("analyze", "def f():\n    import kubetape.capture.btf"),
        ("analyze", "from kubetape import reports"),
        ("bundle", "import kubetape.capture"),
        ("analyze", "import bcc"),
        ("reports", "from kubernetes.client import CoreV1Api"),
    ],
)
def test_a_planted_import_is_found(area: str, source: str) -> None:
    assert len(wrong_imports(area, source)) == 1


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nsys.argv = ['kubetape', '--help']\nfrom kubetape.cli import main\n"
        "try:\n    main()\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        f"print('HEAVY', sorted({HEAVY!r} & sys.modules.keys()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "Record this node" in run.stdout or "Check every byte" in run.stdout
    assert run.stdout.splitlines()[-1] == "HEAVY []"
