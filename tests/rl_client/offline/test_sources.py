import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rl_client.errors import DataError
from rl_client.offline import sources
from rl_client.offline.sources import open_source

RECORDS = [{"id": f"q{n}", "response": f"r{n} é", "n": n} for n in range(11)]
RANGES = [(0, 11), (0, 1), (3, 4), (4, 9), (10, 11), (5, 5), (9, 20)]
COLUMNS = ["id", "response"]


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr(sources, "MARK_EVERY_ROWS", 3)
    monkeypatch.setattr(sources, "BATCH_ROWS", 2)


@pytest.fixture
def make(tmp_path):
    """Writes the same records in each form."""

    def jsonl():
        path = tmp_path / "data.jsonl"
        lines = [json.dumps(record) for record in RECORDS]
        path.write_text("\n".join([*lines[:4], "", "  ", *lines[4:]]))
        return path

    def parquet():
        pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "data.parquet", row_group_size=4)
        return tmp_path / "data.parquet"

    def folder():
        (tmp_path / "folder").mkdir()
        for name, rows in (("b", RECORDS[5:]), ("a", RECORDS[:5])):
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / "folder" / f"{name}.parquet")
        return tmp_path / "folder"

    def dataset():
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_list(RECORDS).save_to_disk(tmp_path / "dataset", num_shards=3)
        return tmp_path / "dataset"

    return locals()


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "folder", "dataset"])
def test_every_range_of_every_form(make, kind):
    source = open_source(make[kind]())
    assert source.rows == 11
    for start, stop in RANGES:
        read = [{name: record[name] for name in COLUMNS} for _, record in source.read(start, stop, COLUMNS)]
        assert read == [{name: record[name] for name in COLUMNS} for record in RECORDS[start:stop]]


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
def test_columnar_files_give_the_wanted_columns_alone(make, kind):
    ((_, record),) = open_source(make[kind]()).read(2, 3, ["response", "absent"])
    assert record == {"response": "r2 é"}


def test_places_name_the_line_or_the_row(make):
    places = [place for place, _ in open_source(make["jsonl"]()).read(3, 5, [])]
    assert [place.rpartition(", ")[2] for place in places] == ["line 4", "line 7"]
    ((place, _),) = open_source(make["parquet"]()).read(9, 10, [])
    assert place.endswith("data.parquet, row 9")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_the_digest_is_that_of_the_bytes(make, kind):
    import hashlib

    path = make[kind]()
    assert open_source(path).digest == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_dataset_dict_asks_which_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_list(RECORDS)
    splits = datasets.DatasetDict({"train": whole, "test": whole.select(range(2))})
    splits.save_to_disk(tmp_path / "both")
    assert open_source(tmp_path / "both", "test").rows == 2
    with pytest.raises(DataError, match=r"train, test.*--split"):
        open_source(tmp_path / "both")
    with pytest.raises(DataError, match="--split"):
        open_source(tmp_path / "both", "dev")
    datasets.DatasetDict({"only": whole}).save_to_disk(tmp_path / "one")
    assert open_source(tmp_path / "one").rows == 11


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("absent.jsonl", None, "does not exist"),
        ("a.csv", b"x", "neither"),
        ("a.parquet", b"x", "cannot be read"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        open_source(tmp_path / name)


def test_an_empty_folder_and_a_split_of_a_file_are_refused(tmp_path, make):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no Parquet files"):
        open_source(tmp_path / "empty")
    with pytest.raises(DataError, match="has no splits"):
        open_source(make["jsonl"](), "train")


@pytest.mark.parametrize("line", ["{", "[1]", '"text"', "\xff"])
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n' + line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=r"a\.jsonl, line 2"):
        list(open_source(tmp_path / "a.jsonl").read(0, 2, []))
