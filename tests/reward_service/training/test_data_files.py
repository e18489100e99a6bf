from pathlib import Path

import pytest

from reward_service.training.data_files import DataFile


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a.json", [0, 1, 2, 3, 4]),
        ("a.json[:]", [0, 1, 2, 3, 4]),
        ("a.json[:2]", [0, 1]),
        ("a.json[2:]", [2, 3, 4]),
        ("a.json[1:3]", [1, 2]),
        ("a.json[-2:]", [3, 4]),
        ("a.json[:-2]", [0, 1, 2]),
        ("a.json[0:5]", [0, 1, 2, 3, 4]),
    ],
)
def test_slices_are_those_of_python(text: str, rows: list[int]) -> None:
    file = DataFile.parse(text)
    assert file.path == Path("a.json")
    assert list(file.rows(5)) == rows


@pytest.mark.parametrize("text", ["a.json[:6]", "a.json[6:]", "a.json[-6:]"])
def test_a_bound_past_the_file_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="past the file's 5 rows"):
        DataFile.parse(text).rows(5)


@pytest.mark.parametrize("text", ["a.json[3:3]", "a.json[5:]", "a.json[:0]", "a.json[4:-2]"])
def test_an_empty_slice_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="holds none of the file's 5 rows"):
        DataFile.parse(text).rows(5)


@pytest.mark.parametrize("text", ["a.json[2]", "a.json[:20%]", "a.json[a:b]", "[:3]", "a.json[1:2:3]", "a.json]"])
def test_what_is_no_slice_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="START:STOP"):
        DataFile.parse(text)


@pytest.mark.parametrize("text", ["a.json", "d/a.json[:2]", "a.json[-3:-1]", "a[1].json", "a[1].json[2:]"])
def test_it_is_written_as_it_is_read(text: str) -> None:
    assert str(DataFile.parse(text)) == text


def test_an_empty_file_is_whole() -> None:
    assert list(DataFile.parse("a.json").rows(0)) == []
