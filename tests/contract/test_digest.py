"""The digest that names a scored text in ledgers, exports and scored files."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from reward_proto import Granularity, ScoreItem, item_digest


def test_the_bytes_are_as_documented() -> None:
    item = ScoreItem(
        id="q1",
        prompt="p",
        response='né "😀"\n',
        fields={"question": "Who?", "context": "c"},
        segments={Granularity.SENTENCE: [(0, 2), (3, 6)]},
    )
    written = (
        rb'["item-1","p","n\u00e9 \"\ud83d\ude00\"\n",'
        rb'[["context","c"],["question","Who?"]],[["sentence",[[0,2],[3,6]]]]]'
    )
    assert item_digest(item) == hashlib.sha256(written).hexdigest()


def test_the_id_and_the_order_of_fields_have_no_part_in_it() -> None:
    one = ScoreItem(id="a", response="r", fields={"x": "1", "y": "2"})
    other = ScoreItem(id="b", response="r", fields={"y": "2", "x": "1"})
    assert item_digest(one) == item_digest(other)


texts = st.text(max_size=3)
items = st.builds(
    ScoreItem,
    prompt=texts,
    response=texts,
    fields=st.dictionaries(texts, texts, max_size=2),
    segments=st.dictionaries(st.sampled_from(Granularity), st.lists(st.just((0, 1)), max_size=2), max_size=2),
)


@given(items, items)
def test_other_texts_have_another_digest(one: ScoreItem, other: ScoreItem) -> None:
    assert (item_digest(one) == item_digest(other)) == (one == other)
