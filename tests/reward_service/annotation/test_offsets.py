import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.annotation.offsets import Offsets, from_utf16, read_offsets, to_utf16, write_offsets

TEXT = "a👍🏽\r\ne\u0301🎉z"
UNITS = [0, 1, 3, 5, 6, 7, 8, 9, 11, 12]
"""By hand: a 1, two emoji of 2, CR 1, LF 1, e 1, accent 1, an emoji of 2, z 1."""


def test_units_of_every_point() -> None:
    assert [to_utf16(TEXT, point) for point in range(len(TEXT) + 1)] == UNITS
    assert [from_utf16(TEXT, unit) for unit in UNITS] == list(range(len(TEXT) + 1))


@pytest.mark.parametrize(
    ("unit", "fault"), [(2, "inside a character"), (10, "inside"), (13, "outside"), (-1, "outside")]
)
def test_what_is_no_position_is_refused(unit: int, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        from_utf16(TEXT, unit)


@given(st.text())
def test_there_and_back(text: str) -> None:
    assert [from_utf16(text, to_utf16(text, point)) for point in range(len(text) + 1)] == list(range(len(text) + 1))


def test_spans_are_read_as_they_are_counted() -> None:
    assert read_offsets(TEXT, 1, 5, Offsets.UTF16) == (1, 3)
    assert read_offsets(TEXT, 1, 3, Offsets.CODE_POINTS) == (1, 3)
    assert write_offsets(TEXT, 1, 3, Offsets.UTF16) == (1, 5)
    assert write_offsets(TEXT, 1, 3, Offsets.CODE_POINTS) == (1, 3)
    for start, end in ((3, 3), (4, 3), (0, 10), (-1, 2)):
        with pytest.raises(ValueError, match="outside"):
            read_offsets(TEXT, start, end, Offsets.CODE_POINTS)
