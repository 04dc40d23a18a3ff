"""The file: complete or absent, and every way it can be wrong ends in one clear line."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest

from kubetape.bundle import TABLES, Manifest, Node, arrow_schema
from kubetape.bundle.reader import Bundle
from kubetape.bundle.writer import BundleWriter
from kubetape.errors import BundleError
from tests.shop import BundleMaker, http


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    maker = BundleMaker()
    connection = maker.connect(("10.0.0.1", 40000), ("10.0.0.2", 80), "client")
    maker.ask([connection], 1, 5, *http())
    return maker.write(tmp_path / "good.ktape")


def _rewrite(
    source: Path, target: Path, change: dict[str, bytes | None], compression: int = zipfile.ZIP_STORED
) -> Path:
    """A copy of a bundle with members replaced, or left out where None."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change.get(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def test_rows_come_back(bundle: Path) -> None:
    opened = Bundle(bundle)
    assert opened.table("connection").column("remote_ip").to_pylist() == ["10.0.0.2"]
    assert opened.table("socket_data", ["payload"]).column("payload").to_pylist()[0].startswith(b"GET / ")
    assert opened.verify() == []


def test_a_table_the_bundle_lacks_is_empty_with_its_columns(bundle: Path) -> None:
    table = Bundle(bundle).table("sched_slice")
    assert table.num_rows == 0
    assert table.schema.names == TABLES["sched_slice"].column_names


def test_every_table_can_be_written_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.ktape"
    with BundleWriter(path, Manifest(nodes=[Node("n")])) as writer:
        for name in TABLES:
            writer.write_rows(name, [])
    opened = Bundle(path)
    for name, table in TABLES.items():
        assert opened.table(name).schema.types == arrow_schema(table).types


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), BundleWriter(tmp_path / "x.ktape", Manifest()):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_null_where_none_may_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is NULL"), BundleWriter(tmp_path / "x.ktape", Manifest()) as writer:
        writer.write_rows("connection", [{"node": "n", "connection_id": 1, "transport": "tcp", "side": "client"}])


def test_a_misspelt_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="conection_id"), BundleWriter(tmp_path / "x.ktape", Manifest()) as writer:
        writer.write_rows("connection", [{"conection_id": 1}])


def test_not_a_bundle(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("hello")
    with pytest.raises(BundleError, match="not a ZIP file"):
        Bundle(path)


def test_absent_and_empty(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no file"):
        Bundle(tmp_path / "absent")
    (tmp_path / "empty").touch()
    with pytest.raises(BundleError, match="empty"):
        Bundle(tmp_path / "empty")


def test_cut_off_while_copied(bundle: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.ktape"
    cut.write_bytes(bundle.read_bytes()[:-100])
    with pytest.raises(BundleError, match="cut off"):
        Bundle(cut)


def test_a_version_from_the_future(bundle: Path, tmp_path: Path) -> None:
    manifest = json.loads(zipfile.ZipFile(bundle).read("manifest.json")) | {"format_version": 99}
    with pytest.raises(BundleError, match="format version 99"):
        Bundle(_rewrite(bundle, tmp_path / "x.ktape", {"manifest.json": json.dumps(manifest).encode()}))


def test_members_compressed_by_somebody_elses_zip(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="compressed"):
        Bundle(_rewrite(bundle, tmp_path / "x.ktape", {}, zipfile.ZIP_DEFLATED))


def test_a_missing_table(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="socket_data"):
        Bundle(_rewrite(bundle, tmp_path / "x.ktape", {"socket_data.parquet": None}))


def test_a_table_that_lacks_a_column(tmp_path: Path) -> None:
    schema = arrow_schema(TABLES["connection"])
    short = schema.remove(schema.get_field_index("local_ip"))
    path = tmp_path / "x.ktape"
    with BundleWriter(path, Manifest()) as writer:
        writer.write("connection", short.empty_table(), short)
    with pytest.raises(BundleError, match="lacks the column local_ip"):
        Bundle(path).table("connection")


def test_a_column_newer_than_the_bundle_is_null(tmp_path: Path) -> None:
    schema = arrow_schema(TABLES["connection"])
    short = schema.remove(schema.get_field_index("close_reason"))
    path = tmp_path / "x.ktape"
    with BundleWriter(path, Manifest()) as writer:
        writer.write("connection", short.empty_table(), short)
    assert "close_reason" in Bundle(path).table("connection").schema.names


def test_changed_bytes_are_noticed(bundle: Path, tmp_path: Path) -> None:
    raw = bytearray(zipfile.ZipFile(bundle).read("connection.parquet"))
    raw[len(raw) // 2] ^= 1
    path = _rewrite(bundle, tmp_path / "x.ktape", {"connection.parquet": bytes(raw)})
    assert any("connection" in problem for problem in Bundle(path).verify())


def test_garbage_in_a_table_is_one_clear_error(bundle: Path, tmp_path: Path) -> None:
    size = zipfile.ZipFile(bundle).getinfo("connection.parquet").file_size
    path = _rewrite(bundle, tmp_path / "x.ktape", {"connection.parquet": b"\0" * size})
    with pytest.raises(BundleError, match="connection is damaged"):
        Bundle(path).table("connection")


def test_tables_of_a_user_probe_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.ktape"
    with BundleWriter(path, Manifest()) as writer:
        writer.write("my_probe", {"ts_ns": [1, 2]}, pa.schema([("ts_ns", pa.int64())]))
    assert Bundle(path).table("my_probe").column("ts_ns").to_pylist() == [1, 2]
