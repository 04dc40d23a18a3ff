"""Every derived table is what its header says: names, types, order; made from an empty and from a small bundle."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubetape.analyze.analysis import Analysis
from kubetape.analyze.findings import RULES
from kubetape.analyze.tables import DERIVED_TABLES
from kubetape.bundle import Manifest, Node
from kubetape.bundle.writer import BundleWriter


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    path = tmp_path_factory.mktemp("empty") / "empty.ktape"
    with BundleWriter(path, Manifest(nodes=[Node("n")])):
        pass
    return Analysis(path)


@pytest.mark.parametrize("name", DERIVED_TABLES)
def test_header_and_columns_agree(name: str, empty: Analysis) -> None:
    table = DERIVED_TABLES[name]
    described = empty.query(f"SELECT column_name, column_type FROM (DESCRIBE {name})").to_pylist()
    assert [(c.name, c.type) for c in table.columns] == [(d["column_name"], d["column_type"]) for d in described]


def test_an_empty_bundle_has_no_findings(empty: Analysis) -> None:
    assert empty.query("SELECT * FROM finding").num_rows == 0


def test_every_rule_has_a_page_with_its_parts() -> None:
    for rule in RULES.values():
        for part in ("What it shows.", "Why it matters.", "Known problems.", "Confirm by hand."):
            assert part in rule.page, (rule.name, part)


def test_a_bundle_is_the_only_input(tmp_path: Path, empty: Analysis) -> None:
    from kubetape.errors import QueryError

    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(QueryError):
        empty.query(f"SELECT * FROM read_csv('{secret}')")
