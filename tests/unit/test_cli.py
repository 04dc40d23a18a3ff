"""The command line as a user meets it: clear lines, exit statuses, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.shop import BundleMaker, Pod, http


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "kubetape", *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    maker = BundleMaker(pods=[Pod("gateway-1", "gateway", "10.0.0.1"), Pod("product-1", "product", "10.0.1.1")])
    ends = [maker.connect(("10.0.0.1", 40000), ("10.0.1.1", 8080), side) for side in ("client", "server")]
    for turn in range(30):
        maker.ask(ends, turn * 100, 5, *http(f"/product/{turn}?user=1"))
    return str(maker.write(tmp_path_factory.mktemp("cli") / "good.ktape"))


def assert_one_line(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode == 2, result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("kubetape: ")
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("command", [["info"], ["verify"], ["sql"], ["analyze", "-o", "{folder}"]])
def test_what_is_not_a_bundle(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a bundle")
    words = [w.format(folder=tmp_path / "out") for w in command]
    assert_one_line(run(words[0], str(path), *words[1:]), "notes.txt", "not a ZIP file")


def test_a_truncated_bundle(bundle: str, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ktape"
    cut.write_bytes(Path(bundle).read_bytes()[:-200])
    assert_one_line(run("sql", str(cut), "select 1"), "cut off")


def test_an_absent_file(tmp_path: Path) -> None:
    assert_one_line(run("info", str(tmp_path / "absent.ktape")), "no file")


def test_a_refused_query_says_why(bundle: str) -> None:
    assert_one_line(run("sql", bundle, "select nothing from nowhere"), "nowhere")


def test_a_folder_that_cannot_be_written(bundle: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_line(run("analyze", bundle, "-o", str(tmp_path / "file")), "cannot write")


def test_sql_as_json(bundle: str) -> None:
    result = run(
        "sql", bundle, "select operation, resource, status, server_workload from request limit 1", "--format", "json"
    )
    assert json.loads(result.stdout) == [
        {"operation": "GET", "resource": "/product/{id}", "status": "200", "server_workload": "product"}
    ]


def test_analyze_writes_what_it_promises(bundle: str, tmp_path: Path) -> None:
    result = run("analyze", bundle, "-o", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "out/report.html").read_text("utf8")
    assert "shop/product" in page
    assert "Nothing found" in page
    assert (tmp_path / "out/topology.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out/results/edge.json").read_text())[0]["request_count"] == 30


def test_a_report_asks_nothing_of_the_network(bundle: str, tmp_path: Path) -> None:
    run("analyze", bundle, "-o", str(tmp_path / "out"))
    page = (tmp_path / "out/report.html").read_text("utf8")
    for reference in ("http://", "https://", "//cdn", "<script", "@import"):
        assert reference not in page, reference
    assert page.count("url(") == page.count("url(#")


def test_what_was_recorded_cannot_become_markup(tmp_path: Path) -> None:
    maker = BundleMaker()
    connection = maker.connect(("10.0.0.1", 40000), ("10.0.1.1", 8080), "client")
    for turn in range(30):
        maker.ask([connection], turn * 100, 900, *http("/<script>alert(1)</script>", status=500))
    path = maker.write(tmp_path / "x.ktape")
    run("analyze", str(path), "-o", str(tmp_path / "out"))
    assert "<script>alert" not in (tmp_path / "out/report.html").read_text("utf8")


def test_verify_says_no_with_status_one(bundle: str, tmp_path: Path) -> None:
    raw = bytearray(Path(bundle).read_bytes())
    with zipfile.ZipFile(bundle) as archive:
        member = archive.getinfo("socket_data.parquet")
    raw[member.header_offset + member.file_size // 2] ^= 1
    (tmp_path / "x.ktape").write_bytes(raw)
    result = run("verify", str(tmp_path / "x.ktape"))
    assert (result.returncode, "socket_data" in result.stdout) == (1, True)


def test_explain_knows_its_rules() -> None:
    assert "What it shows" in run("explain", "lossy-link").stdout
    assert_one_line(run("explain", "no-such-rule"), "lossy-link")
