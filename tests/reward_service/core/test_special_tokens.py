from tokenizers import Tokenizer, models, pre_tokenizers, processors

from reward_service.core.special_tokens import first_known, special_ids


def words(*special: str) -> Tokenizer:
    names = [*special, "one", "two"]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token=names[-1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def test_what_stands_around_every_text() -> None:
    tokenizer = words("[CLS]", "[SEP]")
    assert special_ids(tokenizer) == ([], [])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
    )
    assert special_ids(tokenizer) == ([0], [1])


def test_the_first_name_that_is_known() -> None:
    assert first_known(words("</s>", "[SEP]"), ("[SEP]", "</s>")) == 1
    assert first_known(words("</s>"), ("[SEP]", "</s>")) == 0
    assert first_known(words(), ("[SEP]",)) is None
