import pytest

from reward_proto import Granularity, item_digest
from rl_client.errors import DataError
from rl_client.offline.rows import Columns, digest_of, parse_row


def parse(record, **columns):
    return parse_row("f, line 3", 7, record, Columns(**columns))


def test_a_full_record():
    row = parse(
        {
            "id": "q1",
            "sample": 2,
            "prompt": "p",
            "response": "a b",
            "fields": {"question": "Q"},
            "segments": {"sentence": [[0, 1], [2, 3]]},
            "source": "web",
        },
        keep=("source",),
    )
    assert (row.number, row.id, row.sample, dict(row.kept)) == (7, "q1", 2, {"source": "web"})
    assert row.item.id == "7"
    assert row.item.segments == {Granularity.SENTENCE: [(0, 1), (2, 3)]}
    assert digest_of(row) == item_digest("p", "a b", {"question": "Q"}, {"sentence": [(0, 1), (2, 3)]})


def test_what_may_be_absent():
    row = parse({"response": ""})
    assert (row.id, row.sample, row.item.prompt, row.item.response, row.item.fields) == ("7", None, "", "", {})


def test_columns_may_have_other_names():
    row = parse(
        {"key": 5, "q": "p", "answer": "r", "inputs": [("a", "1"), ("b", None)], "ctx": "c"},
        id="key",
        prompt="q",
        response="answer",
        fields="inputs",
        named_fields=(("context", "ctx"),),
    )
    assert (row.id, row.item.prompt, row.item.response) == ("5", "p", "r")
    assert row.item.fields == {"a": "1", "context": "c"}


def test_kept_columns_are_text():
    assert dict(parse({"response": "r", "n": 3, "s": {"a": [1]}}, keep=("n", "s")).kept) == {
        "n": "3",
        "s": '{"a": [1]}',
    }


@pytest.mark.parametrize(
    ("record", "columns", "told"),
    [
        ({}, {}, "no 'response'; it has nothing"),
        ({"response": None, "text": "t"}, {}, "no 'response'; it has 'response', 'text'"),
        ({"response": 5}, {}, "response: Input should be a valid string"),
        ({"response": "r"}, {"prompt": "q"}, "no 'q'"),
        ({"response": "r"}, {"keep": ("source",)}, "no 'source'"),
        ({"response": "r"}, {"named_fields": (("a", "b"),)}, "no 'b'"),
        ({"response": "r", "fields": {"a": 1}}, {}, "fields.a"),
        ({"response": "r", "fields": "text"}, {}, "'fields' must be a mapping"),
        ({"response": "r", "sample": "1"}, {}, "'sample' must be a whole number"),
        ({"response": "r", "segments": {"word": []}}, {}, "segments"),
        ({"response": "\ud800"}, {}, "half a character"),
    ],
)
def test_faults_are_named_with_their_place(record, columns, told):
    with pytest.raises(DataError) as caught:
        parse(record, **columns)
    assert str(caught.value).startswith("f, line 3")
    assert told in str(caught.value)
