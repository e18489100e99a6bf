"""Networks and tokenizers of Hugging Face directories: nothing is downloaded, no pickle and no code of theirs run."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from rl_client.errors import ModelFilesError
from rl_client.training.reader import check_seam


def load_network(folder: Path) -> PreTrainedModel:
    """Load a language model in fp32 and eval mode, an encoder-decoder or a decoder.

    Args:
        folder: A Hugging Face directory with config.json and model.safetensors.

    Raises:
        ModelFilesError: If it is missing, no language model, not safetensors, needs code of its own, lacks weights, or
            makes its logits in a way that the client does not know.
    """
    config = _load_config(folder)
    try:
        network, report = _auto_class(config).from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{folder}: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        # transformers would leave these at random values with no more than a log line.
        faults = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
        raise ModelFilesError(f"{folder}: weights are missing or of another shape: {', '.join(faults[:5])}")
    return _prepare(network, folder)


def init_network(folder: Path, seed: int) -> PreTrainedModel:
    """A network with random weights from `config.json`, the same for the same seed.

    Raises:
        ModelFilesError: If the directory is missing or its config is no language model's.
    """
    config = _load_config(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = _auto_class(config).from_config(config, trust_remote_code=False)
        except ValueError as error:
            raise ModelFilesError(f"{folder}: {error}") from error
    return _prepare(network, folder)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a model directory.

    Raises:
        ModelFilesError: If it is missing, needs code of its own, or has no eos token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{folder}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ModelFilesError(f"{folder}: the tokenizer has no eos token, so no response could end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_same_tokens(policy: Path, value: Path) -> None:
    """Compare two directories' tokenizers: a value model reads the ids that the policy sampled.

    Raises:
        ModelFilesError: If an id means another token to the one than to the other, or one has no tokenizer.
    """
    if load_tokenizer(policy).get_vocab() != load_tokenizer(value).get_vocab():
        raise ModelFilesError(f"{value}: the value model's tokenizer is not the policy's ({policy})")


def _load_config(folder: Path) -> Any:
    transformers_logging.disable_progress_bar()
    if not folder.is_dir():
        raise ModelFilesError(f"{folder} is not a directory")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{folder}: {error}") from error
    if config.is_encoder_decoder and config.decoder_start_token_id is None:
        raise ModelFilesError(f"{folder}: config.json has no decoder_start_token_id")
    return config


def _auto_class(config: Any) -> Any:
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


def _prepare(network: PreTrainedModel, folder: Path) -> PreTrainedModel:
    # The run's settings alone say how to sample: a directory's own defaults (beams, penalties) must not creep in.
    config = network.config
    network.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
    )
    network.eval()
    check_seam(network, folder)
    return network
