import pytest

from reward_proto import Granularity, ScoreItem
from reward_service.domain import Span
from reward_service.errors import InvalidRequestError
from reward_service.web.convert import to_ids, to_text_item


def test_ids_are_given_or_the_index() -> None:
    assert to_ids([ScoreItem(response="a"), ScoreItem(response="b", id=""), ScoreItem(response="c")]) == ["0", "", "2"]


def test_a_shared_id_names_both_items() -> None:
    items = [ScoreItem(response="a", id="x"), ScoreItem(response="b"), ScoreItem(response="c", id="x")]
    with pytest.raises(InvalidRequestError, match=r"items\.2\.id: 'x' is the id of item 0 too"):
        to_ids(items)


def test_spans_become_domain_spans() -> None:
    item = ScoreItem(prompt="p", response="ab", fields={"q": "1"}, segments={Granularity.SENTENCE: [(0, 2)]})
    inside = to_text_item(item)
    assert (inside.prompt, inside.response, inside.fields) == ("p", "ab", {"q": "1"})
    assert inside.segments == {Granularity.SENTENCE: (Span(0, 2),)}
