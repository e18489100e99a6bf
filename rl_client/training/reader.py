"""How a family of networks reads a `TokenBatch` and samples: the one place that knows encoder-decoders from decoders.

Everything else - policies, value models, references, the recipes - goes through `Reader` and does not ask.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from rl_client.errors import ModelFilesError
from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from rl_client.training.causal_reader import CausalReader
from rl_client.training.gradient_checkpointing import checkpoint_layers
from rl_client.training.seq2seq_reader import Seq2SeqReader

SEAM_TOLERANCE = 1e-3
"""Of logits read through the seam against the network's own, by the largest of them: fp32 round-off is far below."""


class Reader(Protocol):
    """Reads given responses, and samples new ones, with one network."""

    shares_prompts: bool
    """Whether a prompt is read once for all of its responses, and not again with each."""

    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: the last hidden state from which each response token is predicted; anything at padding."""
        ...

    def sample(
        self, prompt_ids: Tensor, prompt_mask: Tensor, config: GenerationConfig, steering: Steering = Steering()
    ) -> Tensor:
        """[P * n, T] int64: sampled ids without the prompt, the n samples of a prompt next to each other."""
        ...

    def save_memory(self) -> None:
        """Keep nothing between passes that a recomputed layer could not take twice."""
        ...

    def stay_within_layers(self) -> None:
        """Use a layer's weights in its own forward alone, once a pass: they may not be there otherwise."""
        ...

    def compile(self) -> None:
        """Compile what `states` calls; sampling stays as it is."""
        ...


def make_reader(network: PreTrainedModel) -> Reader:
    """The reader of a network's family."""
    return Seq2SeqReader(network) if network.config.is_encoder_decoder else CausalReader(network)


def read_logits(network: PreTrainedModel, states: Tensor) -> Tensor:
    """Next-token logits of last hidden states, as the network's own forward makes them.

    Apart from the body, so that whoever wants a few log-probabilities need not keep [B, T, V].

    Args:
        network: Of any family.
        states: [..., d] from `Reader.states`.

    Returns:
        [..., V].
    """
    config = network.config
    if getattr(config, "scale_decoder_outputs", False):  # T5 with tied embeddings
        states = states * config.d_model**-0.5
    logits: Tensor = network.get_output_embeddings()(states)
    bias = getattr(network, "final_logits_bias", None)  # BART
    if bias is not None:
        logits = logits + bias.squeeze(0)
    if cap := getattr(config, "final_logit_softcapping", None):  # Gemma
        logits = torch.tanh(logits / cap) * cap
    return logits


@torch.no_grad()
def check_seam(network: PreTrainedModel, folder: object) -> None:
    """Compare `Reader` and `read_logits` with the network's own forward on a few tokens.

    An architecture with a head of its own kind, one that looks ahead, or one whose responses cannot share a prompt
    would otherwise train on wrong log-probabilities without a word.

    Args:
        network: In eval mode, fp32.
        folder: Named in the error.

    Raises:
        ModelFilesError: If they differ.
    """
    device = next(network.parameters()).device
    ids = torch.tensor([[1, 2, 3, 4], [1, 2, 4, 3]], device=device) % network.config.vocab_size
    prompt, response = ids[:, :2], ids[:, 2:].contiguous()
    real = torch.ones_like(response, dtype=torch.bool)
    tokens = TokenBatch(prompt[:1], real[:1], torch.zeros(2, dtype=torch.long, device=device), response, real)
    found = read_logits(network, make_reader(network).states(tokens))
    if network.config.is_encoder_decoder:
        expected = network(input_ids=prompt, labels=response).logits
    else:
        # Without the last token: a network that looks ahead would have seen it through the attention to the right.
        expected = torch.cat([network(input_ids=ids[:, :n]).logits[:, -1:] for n in (2, 3)], dim=1)
    difference = float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    if not difference <= SEAM_TOLERANCE:
        raise ModelFilesError(
            f"{folder}: {type(network).__name__} makes its logits in a way that the client does not know, or looks "
            f"ahead (largest relative difference {difference:.2g}); use another architecture"
        )


def recompute_activations(network: nn.Module, reader: Reader) -> None:
    """Gradient checkpointing: layers are computed again in the backward pass in place of keeping their activations.

    Raises:
        ModelFilesError: If the network has no layers that can be.
    """
    if not checkpoint_layers(network):
        raise ModelFilesError(f"{type(network).__name__} has no layers that gradient_checkpointing could recompute")
    reader.save_memory()
