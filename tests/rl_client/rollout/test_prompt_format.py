import pytest

from rl_client.errors import DataError, ModelFilesError
from rl_client.rollout.prompt_format import cut_prompt_ids, encode_prompts
from rl_client.training.settings_models import PromptFormatSettings
from tests.rl_client.tiny_models import make_tokenizer

CHAT = PromptFormatSettings(chat_template=True)
TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}two {{ message.content }} {% else %}"
    "one {{ message.content }} {% endif %}{% endfor %}{% if add_generation_prompt %}plain{% endif %}"
)


@pytest.fixture
def tokenizer():
    made = make_tokenizer("llama")
    made.chat_template = TEMPLATE
    return made


def words(tokenizer, ids) -> str:
    return tokenizer.decode(ids)


def test_plain_prompts_are_what_the_tokenizer_makes_of_them(tokenizer):
    rows = encode_prompts(["red good .", "blue"], tokenizer, PromptFormatSettings())
    assert [words(tokenizer, ids) for ids in rows] == ["red good .", "blue"]


def test_the_users_turn_ends_where_the_models_begins(tokenizer):
    rows = encode_prompts(["red good .", "blue"], tokenizer, CHAT)
    assert [words(tokenizer, ids) for ids in rows] == ["one red good . plain", "one blue plain"]


def test_a_system_prompt_stands_first(tokenizer):
    settings = PromptFormatSettings(chat_template=True, system_prompt="bad ,")
    assert words(tokenizer, encode_prompts(["blue"], tokenizer, settings)[0]) == "two bad , one blue plain"


def test_a_cut_takes_from_the_text_and_leaves_the_template(tokenizer):
    ids = cut_prompt_ids("red good . blue bad", tokenizer, CHAT, max_tokens=5)
    assert words(tokenizer, ids) == "one red good . plain"


def test_a_cut_of_a_plain_prompt_keeps_its_special_tokens():
    seq2seq = make_tokenizer("t5")
    ids = cut_prompt_ids("red good . blue bad", seq2seq, PromptFormatSettings(), max_tokens=3)
    assert words(seq2seq, ids) == "red good</s>"


def test_a_template_that_fills_the_limit_leaves_no_room(tokenizer):
    with pytest.raises(DataError, match="no room"):
        cut_prompt_ids("red good", tokenizer, CHAT, max_tokens=2)


def test_a_tokenizer_without_a_template_is_refused():
    with pytest.raises(ModelFilesError, match="chat_template"):
        encode_prompts(["blue"], make_tokenizer("llama"), CHAT)


def test_a_template_that_refuses_says_why(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(ModelFilesError, match="no system role"):
        encode_prompts(["blue"], tokenizer, CHAT)
