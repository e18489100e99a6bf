"""Policy, value and reference models.

The seam to the rest is `PolicyModel.forward` and `ValueModel.forward` on a `TokenBatch`: whoever calls them does not
see that the model is an encoder-decoder. Models come in eval mode and PPO leaves them there: without dropout two
forwards agree, and the first ratio is 1.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as transformers_logging

from rl_client.errors import ModelFilesError
from rl_client.rollout.stages import TokenBatch

VALUE_HEAD_FILE = "value_head.safetensors"


class PolicyModel(nn.Module):
    """A sequence-to-sequence language model that scores given responses."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Next-token logits at each sampled token.

        Args:
            tokens: B responses of T tokens.

        Returns:
            [B, T, V]: position t holds the distribution that token t was drawn from, temperature not applied.
        """
        source = _encode(self.network, tokens)
        logits: Tensor = self.network(
            encoder_outputs=BaseModelOutput(source.states),
            attention_mask=source.mask,
            decoder_input_ids=_shift_right(tokens.response_ids, self.network.config.decoder_start_token_id),
            past_key_values=source.keys_and_values,
            use_cache=False,
        ).logits
        return logits

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a plain Hugging Face directory: config, safetensors, tokenizer."""
        self.network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


class ValueModel(nn.Module):
    """An estimate of the return at each sampled token: a body like the policy's and a scalar head."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        vocabulary_head = network.get_output_embeddings()
        if vocabulary_head.weight is not network.get_input_embeddings().weight:
            vocabulary_head.requires_grad_(False)  # not tied, hence never used here
        self.head = nn.Linear(network.config.hidden_size, 1)
        # All values start at 0: the first advantages are then the rewards-to-go, not the noise of a random head.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Values of the states in which each sampled token was chosen.

        Args:
            tokens: B responses of T tokens.

        Returns:
            [B, T] float32; anything where the response mask is False.
        """
        source = _encode(self.network, tokens)
        hidden = self.network.get_decoder()(
            input_ids=_shift_right(tokens.response_ids, self.network.config.decoder_start_token_id),
            encoder_hidden_states=source.states,
            encoder_attention_mask=source.mask,
            past_key_values=source.keys_and_values,
            use_cache=False,
        ).last_hidden_state
        values: Tensor = self.head(hidden).squeeze(-1)
        return values.float()

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the body as a Hugging Face directory and the head beside it."""
        self.network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_file(
            {name: tensor.contiguous() for name, tensor in self.head.state_dict().items()}, folder / VALUE_HEAD_FILE
        )


def load_policy(folder: Path) -> PolicyModel:
    """Load a policy for fp32, dropout off.

    Args:
        folder: A Hugging Face directory with config.json and model.safetensors.

    Raises:
        ModelFilesError: If it is missing, not an encoder-decoder, not safetensors, needs code of its own, or lacks
            weights.
    """
    _check_seq2seq(folder)
    try:
        network, report = AutoModelForSeq2SeqLM.from_pretrained(
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
    return PolicyModel(_prepare(network))


def init_policy(folder: Path, seed: int) -> PolicyModel:
    """A policy with random weights from `config.json`, the same for the same seed.

    Raises:
        ModelFilesError: If the directory is missing or its config is not an encoder-decoder's.
    """
    config = _check_seq2seq(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False)
    return PolicyModel(_prepare(network))


def load_value(folder: Path) -> ValueModel:
    """A value model from a directory of its own, or from a policy's: then with a new head that gives 0 everywhere.

    Raises:
        ModelFilesError: As for `load_policy`.
    """
    value = ValueModel(load_policy(folder).network)
    if (folder / VALUE_HEAD_FILE).exists():
        value.head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    return value.eval()


def freeze_copy(policy: PolicyModel) -> PolicyModel:
    """The reference: a copy that never changes."""
    reference = copy.deepcopy(policy)
    return reference.requires_grad_(False).eval()


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


def _check_seq2seq(folder: Path) -> Any:
    transformers_logging.disable_progress_bar()
    if not folder.is_dir():
        raise ModelFilesError(f"{folder} is not a directory")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{folder}: {error}") from error
    if not config.is_encoder_decoder:
        raise ModelFilesError(f"{folder}: {config.model_type} is not an encoder-decoder; policies are, for now")
    if config.decoder_start_token_id is None:
        raise ModelFilesError(f"{folder}: config.json has no decoder_start_token_id")
    return config


def _prepare(network: PreTrainedModel) -> PreTrainedModel:
    # The run's settings alone say how to sample: a directory's own defaults (beams, penalties) must not creep in.
    config = network.config
    network.generation_config = GenerationConfig(
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )
    return network.eval()


@dataclass(frozen=True, slots=True)
class _Source:
    """What the decoder attends to, a row for each response.

    Attributes:
        states: [B, L, d] the encoder's states; without a gradient when `keys_and_values` carries it.
        mask: [B, L] bool, True = a real token.
        keys_and_values: Of the states, for every layer; None leaves it to the decoder to make them.
    """

    states: Tensor
    mask: Tensor
    keys_and_values: EncoderDecoderCache | None


def _encode(network: PreTrainedModel, tokens: TokenBatch) -> _Source:
    """Encode each prompt once for all of its responses."""
    states = network.get_encoder()(input_ids=tokens.prompt_ids, attention_mask=tokens.prompt_mask).last_hidden_state
    mask = tokens.prompt_mask[tokens.prompt_index]
    if len(tokens) == len(states) or not isinstance(network, T5ForConditionalGeneration):
        return _Source(states.index_select(0, tokens.prompt_index), mask, None)
    keys_and_values = _project_once(network, states, tokens.prompt_index)
    return _Source(states.detach().index_select(0, tokens.prompt_index), mask, keys_and_values)


def _project_once(network: T5ForConditionalGeneration, states: Tensor, prompt_index: Tensor) -> EncoderDecoderCache:
    """Cross-attention keys and values, computed once a prompt; the decoder by itself would do so once a response.

    Where prompts are longer than responses these projections are the larger part of the decoder's work.
    """
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    for layer, block in enumerate(network.decoder.block):
        attention = block.layer[1].EncDecAttention
        shape = (len(prompt_index), states.shape[1], attention.n_heads, attention.key_value_proj_dim)
        keys, values = (
            projection(states).index_select(0, prompt_index).view(shape).transpose(1, 2)
            for projection in (attention.k, attention.v)
        )
        cache.cross_attention_cache.update(keys, values, layer)
        cache.is_updated[layer] = True
    return cache


def _shift_right(ids: Tensor, start_id: int) -> Tensor:
    return torch.cat([torch.full_like(ids[:, :1], start_id), ids[:, :-1]], dim=1)
