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
from rl_client.training.lora import ADAPTER_FOLDER, Adapter
from rl_client.training.model_files import init_network, load_network
from rl_client.training.reader import make_reader, read_logits, recompute_activations
from rl_client.training.settings_models import LoraSettings, NetworkSettings

VALUE_HEAD_FILE = "value_head.safetensors"
LOGITS_AT_ONCE = 1 << 22
"""How many logits exist at a time: 16 MiB in fp32, and a few times that while they are reduced."""


class NetworkModel(nn.Module):
    """A network with what the settings did to it."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__()
        self.network = network
        self.reader = make_reader(network)
        self.adapter: Adapter | None = None

    def add_adapter(self, settings: LoraSettings, seed: int) -> None:
        """Freeze the network and put a low-rank adapter into it, which changes nothing yet.

        Raises:
            ConfigError: See `Adapter`.
            ModelFilesError: See `Adapter`.
        """
        self.adapter = Adapter(self.network, settings, seed)

    def prepare(self, settings: NetworkSettings) -> None:
        """Recompute activations and compile, as the settings say.

        Raises:
            ModelFilesError: If the network has no layers whose activations could be recomputed.
        """
        if settings.gradient_checkpointing:
            recompute_activations(self.network, self.reader)
        if settings.compile:
            self.reader.compile()

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
        """Write a plain Hugging Face directory: config, safetensors, tokenizer; an adapter merged, and in a folder."""
        network = self.network if self.adapter is None else self.adapter.merged()
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if self.adapter is not None:
            self.adapter.save(folder / ADAPTER_FOLDER)


class PolicyModel(NetworkModel):
    """A language model that scores given responses and samples new ones."""

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

    def read(self, tokens: TokenBatch, *, temperature: float) -> tuple[Tensor, Tensor]:
        """`states` and their `logprobs`, in one call: where weights are divided, it gathers them."""
        states = self.states(tokens)
        return states, self.logprobs(states, tokens, temperature=temperature)

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


class ValueModel(NetworkModel):
    """An estimate of the return at each sampled token: a body of its own, like a policy's, and a scalar head."""

    shares_trunk = False
    """Whether `forward` reads the policy's states, so that one backward pass must serve both losses."""

    def __init__(self, network: PreTrainedModel) -> None:
        super().__init__(network)
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
        super().save(folder, tokenizer)
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
    """A copy that never changes; its weights are its own, hence `make_reference` where there is an adapter."""
    reference = copy.deepcopy(policy)
    return reference.requires_grad_(False).eval()
