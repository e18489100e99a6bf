from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_proto.models import ModelKind
from reward_proto.score import Granularity
from reward_service.cache.key import KEY_BYTES, KeyMaker
from reward_service.domain import Head, ModelCard, Span, TextItem

HEAD = Head(ModelKind.TOKEN_CLASSIFICATION, ("ok", "bad"), "ok")
CARD = ModelCard("m", "0" * 12, "0" * 64, ("latest",), HEAD, Granularity.SENTENCE, "en", "{prompt}", 99, "torch-fp32")

# Few characters, so that texts that could run into each other are drawn often; with lone surrogates.
TEXTS = st.text(alphabet="ab\x00\ud800\udc00", max_size=3)
SPANS = st.lists(st.builds(Span, st.integers(0, 3), st.integers(0, 3)), max_size=2).map(tuple)
ITEMS = st.builds(
    TextItem,
    prompt=TEXTS,
    response=TEXTS,
    fields=st.dictionaries(TEXTS, TEXTS, max_size=2),
    segments=st.dictionaries(st.sampled_from([Granularity.SENTENCE, Granularity.SEQUENCE]), SPANS, max_size=2),
)


@settings(max_examples=100, deadline=None)
@given(ITEMS, ITEMS)
def test_two_items_share_a_key_only_if_the_model_cannot_tell_them_apart(one: TextItem, other: TextItem) -> None:
    def seen(item: TextItem) -> Any:
        return item.prompt, item.response, item.fields, item.segments.get(Granularity.SENTENCE)

    keys = KeyMaker([CARD])
    assert (keys.make(one) == keys.make(other)) == (seen(one) == seen(other))


@settings(max_examples=60, deadline=None)
@given(ITEMS, ITEMS)
def test_inputs_that_are_not_read_make_no_difference(one: TextItem, other: TextItem) -> None:
    def seen(item: TextItem) -> Any:
        return item.response, item.fields.get("a"), item.segments.get(Granularity.SENTENCE)

    keys = KeyMaker([CARD], reads={"a"})
    assert (keys.make(one) == keys.make(other)) == (seen(one) == seen(other))


def test_the_order_of_fields_makes_no_difference() -> None:
    keys = KeyMaker([CARD])
    assert keys.make(TextItem("", "r", {"a": "1", "b": "2"})) == keys.make(TextItem("", "r", {"b": "2", "a": "1"}))


def test_a_field_that_is_called_prompt_is_not_the_prompt() -> None:
    item = TextItem("p", "r", {"prompt": "x"})
    keys = KeyMaker([CARD], reads={"prompt"})
    assert keys.make(item) == keys.make(replace(item, fields={}))
    assert keys.make(item) != keys.make(replace(item, prompt="q"))


@pytest.mark.parametrize(
    "other",
    [
        KeyMaker([replace(CARD, digest="1" * 64)]),
        KeyMaker([replace(CARD, name="n")]),
        KeyMaker([replace(CARD, runtime="torch-bf16")]),
        KeyMaker([replace(CARD, granularity=Granularity.SUB_SENTENCE)]),
        KeyMaker([replace(CARD, language="de")]),
        KeyMaker([replace(CARD, head=replace(HEAD, ok_label="bad"))]),
        KeyMaker([CARD, CARD]),
        KeyMaker([CARD], {"libraries": {"torch": "2.0"}}),
        KeyMaker([CARD], {"libraries": {"torch": "2.1"}}),
        KeyMaker([CARD], reads=()),
        KeyMaker([CARD], reads=("prompt",)),
    ],
)
def test_another_computation_has_other_keys(other: KeyMaker) -> None:
    item = TextItem("p", "r", {"a": "b"})
    assert other.make(item) != KeyMaker([CARD]).make(item)


def test_what_may_change_without_changing_a_score_changes_no_key() -> None:
    item = TextItem("p", "r")
    assert KeyMaker([replace(CARD, aliases=("new",))]).make(item) == KeyMaker([CARD]).make(item)


def test_a_key_outlives_the_process() -> None:
    # Written down when the encoding was made. Change it together with FORMAT only: files hold keys of this form.
    item = TextItem("p", "rä\ud800", {"q": "w"}, {Granularity.SENTENCE: (Span(0, 2),)})
    key = KeyMaker([CARD], {"device": "cpu"}, {"prompt", "q"}).make(item)
    assert len(key) == KEY_BYTES
    assert key.hex() == "95b2b8ba1876cea19119fb318dcc28ceb8e80482096efa5f824a796559b74663"
