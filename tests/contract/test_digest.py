"""The digests that name texts in ledgers, exports and scored files."""

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reward_proto import item_digest, text_digest

texts = st.text(max_size=3)
items = st.tuples(
    texts,
    texts,
    st.dictionaries(texts, texts, max_size=2),
    st.dictionaries(
        st.sampled_from(["sentence", "sequence"]), st.lists(st.sampled_from([(0, 1), (1, 2)]), max_size=2), max_size=2
    ),
)


def test_the_bytes_are_as_documented() -> None:
    spans = {"sentence": [(0, 2), (3, 6)]}
    written = (
        '{"fields":{"context":"c","question":"Who?"},"prompt":"p","response":"né \\"😀\\"\\n",'
        '"segments":{"sentence":[[0,2],[3,6]]}}'
    )
    expected = hashlib.sha256(written.encode()).hexdigest()
    assert item_digest("p", 'né "😀"\n', {"question": "Who?", "context": "c"}, spans) == expected
    assert text_digest("né") == hashlib.sha256(b"n\xc3\xa9").hexdigest()


def test_what_is_absent_is_empty() -> None:
    assert item_digest("p", "r") == item_digest("p", "r", {}, {})


@given(items, items)
def test_other_texts_have_another_digest(one: Any, other: Any) -> None:
    assert (item_digest(*one) == item_digest(*other)) == (one == other)
