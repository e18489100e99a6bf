"""Configurations and tokenizers of tiny models, one for each family of networks."""

from typing import Any

WORDS = ("good", "bad", "plain", "red", "blue", "one", "two", ".", ",")
PAD, EOS, UNK = 0, 1, 2
VOCABULARY = ("<pad>", "</s>", "<unk>", *(f"▁{word}" for word in WORDS))
IDS = {"vocab_size": len(VOCABULARY), "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": None}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    # One encoder and two decoder layers: transformers confuses the two depths in places.
    "t5": (
        "T5Config",
        {
            "d_model": 16,
            "d_kv": 8,
            "d_ff": 32,
            "num_heads": 2,
            "num_layers": 1,
            "num_decoder_layers": 2,
            "dropout_rate": 0.1,
            "decoder_start_token_id": PAD,
        },
    ),
    # The start token is eos, as in the released models.
    "bart": (
        "BartConfig",
        {
            "d_model": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "max_position_embeddings": 64,
            "init_std": 0.5,
            "decoder_start_token_id": EOS,
            "forced_eos_token_id": None,
        },
    ),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "initializer_range": 0.2}),
    # Tied embeddings and grouped heads, as in SmolLM2.
    "llama": (
        "LlamaConfig",
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "attention_dropout": 0.1,
            "initializer_range": 0.2,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2": (
        "Qwen2Config",
        {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 64,
            "initializer_range": 0.2,
        },
    ),
}
SEQ2SEQ = ("t5", "bart")
CAUSAL = ("gpt2", "llama", "qwen2")
LORA = "_lora"
"""Ends the name of a family whose policies have an adapter."""


def make_config(family: str) -> Any:
    """A configuration of `CONFIGS`."""
    import transformers

    name, settings = CONFIGS[family.removesuffix(LORA)]
    return getattr(transformers, name)(**IDS, **settings)


def make_tokenizer(family: str) -> Any:
    """Word-level, one space before each word; for an encoder, eos after what it reads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    if family in SEQ2SEQ:
        backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def make_policy(family: str, seed: int = 0) -> Any:
    """A policy with random weights, in eval mode."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    from rl_client.training.models import PolicyModel

    auto = AutoModelForSeq2SeqLM if family in SEQ2SEQ else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PolicyModel(auto.from_config(make_config(family)).eval())


def make_batch() -> Any:
    """Two prompts of unlike length, three responses: the first prompt has two of them."""
    import torch

    from rl_client.rollout.stages import TokenBatch

    return TokenBatch(
        prompt_ids=torch.tensor([[4, 5, 6, 1], [7, 1, 0, 0]]),
        prompt_mask=torch.tensor([[True] * 4, [True, True, False, False]]),
        prompt_index=torch.tensor([0, 1, 0]),
        response_ids=torch.tensor([[3, 4, 1], [5, 1, 0], [1, 0, 0]]),
        response_mask=torch.tensor([[True] * 3, [True, True, False], [True, False, False]]),
    )


def stir(model: Any, scale: float = 0.3) -> None:
    """Add noise to every parameter that learns."""
    import torch

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
