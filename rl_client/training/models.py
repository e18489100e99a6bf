"""Policy, value and reference models.

The seam to the rest is `states`, `logits` and `forward` on a `TokenBatch`: whoever calls them does not see whether the
network is an encoder-decoder or a decoder, whether an adapter is in it, or whether the value model has a body of its
own. Models come in eval mode and PPO leaves them there: without dropout two forwards agree, and the first ratio is 1.
"""

import copy
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rl_client.algorithms.logprobs import read_logprobs, read_logprobs_and_entropy
from rl_client.rollout.sampling import Steering
from rl_client.rollout.stages import TokenBatch
from rl_client.training.model_files import init_network, load_network
from rl_client.training.reader import make_reader, read_logits

VALUE_HEAD_FILE = "value_head.safetensors"
LOGITS_AT_ONCE = 1 << 22
"""How many logits exist at a time: 16 MiB in fp32, and a few times that while they are reduced."""


class PolicyModel(nn.Module):
    """A language model that scores given responses and samples new ones."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.reader = make_reader(network)

    def forward(self, tokens: TokenBatch) -> Tensor:
        """Next-token logits at each sampled token.

        Args:
            tokens: B responses of T tokens.

        Returns:
            [B, T, V]: position t holds the distribution that token t was drawn from, temperature not applied.
        """
        return self.logits(self.states(tokens))

    def states(self, tokens: TokenBatch) -> Tensor:
        """[B, T, d]: the last hidden state that each sampled token was drawn from."""
        return self.reader.states(tokens)

    def logits(self, states: Tensor) -> Tensor:
        """[..., V] of states [..., d]: any part of `states`, so that [B, T, V] need never be whole in memory."""
        return read_logits(self.network, states)

    def logprobs(self, states: Tensor, tokens: TokenBatch, *, temperature: float) -> Tensor:
        """[B, T] float32 of the sampled tokens, 0 where masked; `states` are those of the same tokens."""
        return read_logprobs(
            states,
            tokens.response_ids,
            tokens.response_mask,
            self.logits,
            temperature=temperature,
            chunk_tokens=self.chunk_tokens,
        )

    def logprobs_and_entropy(self, states: Tensor, tokens: TokenBatch, *, temperature: float) -> tuple[Tensor, Tensor]:
        """`logprobs`, and the entropy [B, T] of each distribution in nats; without a gradient."""
        return read_logprobs_and_entropy(
            states,
            tokens.response_ids,
            tokens.response_mask,
            self.logits,
            temperature=temperature,
            chunk_tokens=self.chunk_tokens,
        )

    @property
    def chunk_tokens(self) -> int:
        """How many rows of logits may exist at a time."""
        vocabulary: int = self.network.get_output_embeddings().weight.shape[0]
        return max(1, LOGITS_AT_ONCE // vocabulary)

    def sample(
        self, prompt_ids: Tensor, prompt_mask: Tensor, config: GenerationConfig, steering: Steering = Steering()
    ) -> Tensor:
        """Sample responses.

        Args:
            prompt_ids: [P, L] int64.
            prompt_mask: [P, L] bool, True = a real token.
            config: Lengths and special tokens.
            steering: How many samples n of each prompt, and how they are drawn.

        Returns:
            [P * n, T] int64, the prompt left out, those of one prompt next to each other.
        """
        return self.reader.sample(prompt_ids, prompt_mask, config, steering)

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a plain Hugging Face directory: config, safetensors, tokenizer."""
        self.network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


class ValueModel(nn.Module):
    """An estimate of the return at each sampled token: a body of its own, like a policy's, and a scalar head."""

    shares_trunk = False
    """Whether `forward` reads the policy's states, so that one backward pass must serve both losses."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.reader = make_reader(network)
        vocabulary_head = network.get_output_embeddings()
        if vocabulary_head.weight is not network.get_input_embeddings().weight:
            vocabulary_head.requires_grad_(False)  # not tied, hence never used here
        self.head = make_value_head(network)

    def forward(self, tokens: TokenBatch, policy_states: Tensor | None = None) -> Tensor:
        """Values of the states in which each sampled token was chosen.

        Args:
            tokens: B responses of T tokens.
            policy_states: [B, T, d] `PolicyModel.states` of the same tokens; only a shared trunk reads them.

        Returns:
            [B, T] float32; anything where the response mask is False.
        """
        return read_values(self.head, self.reader.states(tokens))

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write the body as a Hugging Face directory and the head beside it."""
        self.network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        save_value_head(self.head, folder)


def make_value_head(network: PreTrainedModel) -> nn.Linear:
    """A head that gives 0 everywhere: the first advantages are then the rewards-to-go and no noise."""
    head = nn.Linear(network.get_output_embeddings().weight.shape[1], 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def read_values(head: nn.Linear, states: Tensor) -> Tensor:
    """[B, T] float32 of states [B, T, d]."""
    values: Tensor = head(states).squeeze(-1)
    return values.float()


def save_value_head(head: nn.Linear, folder: Path) -> None:
    """Write a head into a value model's directory."""
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, folder / VALUE_HEAD_FILE)


def load_policy(folder: Path) -> PolicyModel:
    """Load a policy for fp32, dropout off.

    Raises:
        ModelFilesError: See `load_network`.
    """
    return PolicyModel(load_network(folder))


def init_policy(folder: Path, seed: int) -> PolicyModel:
    """A policy with random weights from `config.json`, the same for the same seed.

    Raises:
        ModelFilesError: See `init_network`.
    """
    return PolicyModel(init_network(folder, seed))


def load_value(folder: Path) -> ValueModel:
    """A value model from a directory of its own, or from a policy's: then with a new head that gives 0 everywhere.

    Raises:
        ModelFilesError: See `load_network`.
    """
    value = ValueModel(load_network(folder))
    if (folder / VALUE_HEAD_FILE).exists():
        value.head.load_state_dict(load_file(folder / VALUE_HEAD_FILE))
    return value.eval()


def freeze_copy(policy: PolicyModel) -> PolicyModel:
    """A copy that never changes."""
    reference = copy.deepcopy(policy)
    return reference.requires_grad_(False).eval()
