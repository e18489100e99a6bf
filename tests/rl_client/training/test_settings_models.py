import pytest
from pydantic import ValidationError

from rl_client.training.settings_models import LoraSettings, NetworkSettings, PromptFormatSettings


def test_everything_is_off_by_default():
    assert NetworkSettings() == NetworkSettings(lora=None, gradient_checkpointing=False, compile=False)
    assert PromptFormatSettings() == PromptFormatSettings(chat_template=False, system_prompt=None)


def test_an_empty_lora_section_is_lora_with_its_defaults():
    assert NetworkSettings.model_validate({"lora": {}}).lora == LoraSettings(rank=16, alpha=32, dropout=0.0)


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"alpha": -1}, {"dropout": 1.0}, {"target_modules": []}, {"r": 8}])
def test_lora_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        LoraSettings.model_validate(wrong)


def test_a_system_prompt_needs_the_template():
    with pytest.raises(ValidationError, match="chat_template"):
        PromptFormatSettings(system_prompt="Be brief.")
