import json
import random

import pytest

from reward_proto import Granularity, ItemResult, ScoreItem, ScoreRequest
from rl_client.api.errors import ReplyError
from rl_client.api.reply_check import Pin
from rl_client.api.retry import RetryPolicy
from rl_client.api.scoring import ScoreCall, encode_items, join_results, resolve_models, score_exchange, split_items

VERSION = "3fa94c01d2be"


def test_items_without_an_id_are_named_by_their_index_and_the_callers_stay_as_they_were() -> None:
    items = [ScoreItem(response="x"), ScoreItem(id="mine", response="y"), ScoreItem(response="z")]
    assert [encoded.item.id for encoded in encode_items(items)] == ["0", "mine", "2"]
    assert items[0].id is None


def test_the_json_of_an_item_is_the_item() -> None:
    item = ScoreItem(
        id="a",
        prompt="p\n",
        response="é👍 \u2028\x00",
        fields={"question": "q?"},
        segments={Granularity.SENTENCE: [(0, 1)]},
    )
    assert ScoreItem.model_validate_json(encode_items([item])[0].content) == item


def test_text_that_is_no_unicode_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="item 'bad' cannot be sent"):
        encode_items([ScoreItem(id="bad", response="\ud800")])


@pytest.mark.parametrize("ids", [["a", "b", "a"], ["1", None]])
def test_items_that_share_an_id_are_refused(ids: list[str | None]) -> None:
    with pytest.raises(ValueError, match=r"item \d has the id '(a|1)' of another item"):
        encode_items([ScoreItem(id=id, response="x") for id in ids])


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (3, [3]), (4, [2, 2]), (7, [3, 2, 2])])
def test_splitting_by_number(count: int, sizes: list[int]) -> None:
    encoded = encode_items([ScoreItem(response=str(index)) for index in range(count)])
    parts = split_items(encoded, max_items=3, max_bytes=10**6)
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == encoded


def test_splitting_by_bytes_counts_bytes_not_characters() -> None:
    encoded = encode_items([ScoreItem(response="中" * 100) for _ in range(4)])  # 300 bytes of text each
    assert [len(part) for part in split_items(encoded, max_items=99, max_bytes=700)] == [2, 2]
    assert [len(part) for part in split_items(encoded, max_items=99, max_bytes=10)] == [1, 1, 1, 1]


def test_no_request_is_over_the_bound() -> None:
    encoded = encode_items([ScoreItem(response="x" * (index % 17)) for index in range(200)])
    for part in split_items(encoded, max_items=999, max_bytes=500):
        assert sum(len(item.content) for item in part) + len(part) - 1 <= 500


def test_models_without_pins() -> None:
    assert resolve_models(None, {}) == (None, {})
    references, pins = resolve_models(["a", "b@latest", f"c@{VERSION}"], {})
    assert references == {"a": "a", "b": "b@latest", "c": f"c@{VERSION}"}
    assert pins == {"c": Pin(VERSION)}


def test_models_with_pins() -> None:
    pinned = {"a": Pin(VERSION, "cpu")}
    assert resolve_models(None, pinned) == ({"a": f"a@{VERSION}"}, pinned)
    assert resolve_models(["a", "b"], pinned) == ({"a": f"a@{VERSION}", "b": "b"}, pinned)
    # What the caller spells out is asked for as it is; the reply must still come from the pin.
    assert resolve_models(["a@latest"], pinned) == ({"a": "a@latest"}, pinned)


@pytest.mark.parametrize("models", [[], ["a", "a"], ["a", "a@latest"]])
def test_models_that_no_reply_could_answer(models: list[str]) -> None:
    with pytest.raises(ValueError, match=r"at least one model|named twice"):
        resolve_models(models, {})


def test_requests_answered_by_different_models_do_not_mix() -> None:
    one = ItemResult(id="a", scores={})
    body = {"model": "m", "version": "v", "runtime": "r", "granularity": "sequence", "segments": None}
    other = ItemResult.model_validate({"id": "b", "scores": {"m": body}})
    assert join_results([[one], [one]]) == [one, one]
    with pytest.raises(ReplyError, match="models changed between requests, at item 'b'"):
        join_results([[one], [other]])
    assert join_results([]) == []


def test_the_joined_body_is_a_request_of_the_contract() -> None:
    items = [ScoreItem(id="a", response="x"), ScoreItem(response="y", fields={"question": 'a "quoted" one'})]
    call = ScoreCall({"m": "m@latest"}, {}, 2.5, True, RetryPolicy(), random.Random(0), print)
    attempt = next(score_exchange(call, encode_items(items)))
    assert attempt.content is not None
    sent = ScoreRequest.model_validate_json(attempt.content)
    assert sent == ScoreRequest(
        items=[items[0], items[1].model_copy(update={"id": "1"})],
        models=["m@latest"],
        timeout_s=2.5,
        return_logits=True,
    )
    everything = ScoreCall(None, {}, 2.5, False, RetryPolicy(), random.Random(0), print)
    attempt = next(score_exchange(everything, encode_items(items)))
    assert attempt.content is not None
    assert "models" not in json.loads(attempt.content)
