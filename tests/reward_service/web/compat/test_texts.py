import pytest

from reward_service.compat_settings import Compat
from reward_service.errors import InvalidRequestError
from reward_service.web.compat.texts import Sample, sample_of_query, sample_of_text, to_item

CHAT = "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
SETTINGS = Compat()


@pytest.mark.parametrize(
    ("query", "prompt", "response"),
    [
        ("Who? Me.", "Who?", "Me."),
        (CHAT + "Me.<|im_end|>", CHAT, "Me."),
        ("<|begin_of_text|>" + CHAT + "Me.<|im_end|>", CHAT, "Me."),
        ("<pad><pad><s> Who? Me.</s><pad>", "Who?", "Me."),
        ("Who?", "Who?", ""),
        ("Me.", "", "Me."),
        ("Who? Who? Me.", "Who?", "Who? Me."),
        ("Wer? 😀 e\u0301.", "Wer?", "😀 e\u0301."),
    ],
)
def test_the_prompt_is_taken_off_the_query(query: str, prompt: str, response: str) -> None:
    sample = sample_of_query(query, prompt, None, "query.0", SETTINGS)
    assert to_item(sample, "query.0", SETTINGS).response == response


@pytest.mark.parametrize(("query", "prompt"), [("Me.", "Who?"), ("So. Who? Me.", "Who?"), ("<x>Who? Me.", "Who?")])
def test_a_query_that_does_not_begin_with_its_prompt_is_refused(query: str, prompt: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"query\.4"):
        sample_of_query(query, prompt, None, "query.4", SETTINGS)


def test_special_tokens_are_the_settings() -> None:
    sample = sample_of_query("<x>Who? Me.<y></s>", "Who?", None, "q", Compat(special_tokens=("<x>", "<y>")))
    assert to_item(sample, "q", Compat(special_tokens=("<x>", "<y>"))).response == "Me.</s>"
    assert to_item(Sample("", "a<s>b"), "q", Compat(special_tokens=())).response == "a<s>b"


def test_a_longer_token_is_not_left_half() -> None:
    settings = Compat(special_tokens=("<s>", "<s><s>!"))
    assert to_item(Sample("", "a<s><s>!b"), "q", settings).response == "ab"


def test_one_text_is_divided_at_the_last_mark() -> None:
    settings = Compat(response_after="assistant:")
    text = "user: a assistant: b user: c assistant: d"
    assert sample_of_text(text, "input.0", settings) == Sample("user: a assistant: b user: c ", " d", cut=True)
    with pytest.raises(InvalidRequestError, match=r"input\.0: has no 'assistant:'"):
        sample_of_text("user: a", "input.0", settings)


def test_without_a_mark_the_text_is_the_response() -> None:
    assert sample_of_text("user: a", "input.0", SETTINGS) == Sample("", "user: a")


def test_the_users_words_are_taken_out_of_a_chat_template() -> None:
    settings = Compat(prompt_between=("<|im_start|>user\n", "<|im_end|>"), fields={"question": "Q: {prompt}"})
    earlier = "<|im_start|>user\nBefore<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n"
    item = to_item(Sample(earlier + CHAT, "Me."), "query.0", settings)
    assert (item.prompt, item.fields) == ("Who?", {"question": "Q: Who?"})
    for prompt in ("Who?", "<|im_start|>user\nWho?"):
        with pytest.raises(InvalidRequestError, match="prompt_between"):
            to_item(Sample(prompt, "Me."), "query.0", settings)
    assert to_item(Sample("", "Me."), "query.0", settings).prompt == "", "a protocol without prompts has no marks"


def test_fields_come_from_prompt_and_label() -> None:
    settings = Compat(fields={"question": "{prompt}", "context": "see {label}", "style": "{{label}}"})
    with_label = to_item(Sample("Who?", "Me.", "the label"), "q", settings)
    assert with_label.fields == {"question": "Who?", "context": "see the label", "style": "{label}"}
    without = to_item(Sample("Who?", "Me."), "q", settings)
    assert without.fields == {"question": "Who?", "style": "{label}"}, "a model that needs it says missing_field"


def test_a_prompt_with_braces_is_text() -> None:
    settings = Compat(fields={"question": "{prompt}"})
    assert to_item(Sample("{label} {0} {", "Me."), "q", settings).fields == {"question": "{label} {0} {"}


def test_white_space_is_trimmed_only_where_a_text_was_cut() -> None:
    assert to_item(Sample(" a\n", "\n b ", cut=True), "q", SETTINGS).response == "b"
    assert to_item(Sample(" a\n", "\n b "), "q", SETTINGS).response == "\n b "
