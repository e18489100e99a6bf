"""A GGUF file (llama.cpp's format) -> a plain Hugging Face directory that every command can start from."""

import struct
from functools import partial
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rl_client.errors import ModelFilesError, RunFolderError
from rl_client.training.durable import write_folder


def convert_gguf(file: Path, output: Path) -> None:
    """Write the network of a GGUF file in fp32, de-quantized, and its tokenizer.

    Args:
        file: Of an architecture that transformers reads (llama, qwen2, gpt2, ...).
        output: The directory; must not exist.

    Raises:
        RunFolderError: If `output` exists.
        ModelFilesError: If the package gguf (the extra `gguf`) is missing, or the file cannot be read.
    """
    if output.exists():
        raise RunFolderError(f"{output} exists already; choose another output folder, or delete this one")
    if not file.is_file():
        raise ModelFilesError(f"{file} is not a file")
    transformers_logging.disable_progress_bar()
    where = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where)
        network, report = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, struct.error) as error:
        raise ModelFilesError(f"{file}: {error}") from error
    if report["missing_keys"] or report["mismatched_keys"]:
        faults = sorted(str(key) for key in (*report["missing_keys"], *report["mismatched_keys"]))
        raise ModelFilesError(f"{file}: weights are missing or of another shape: {', '.join(faults[:5])}")
    write_folder(output, partial(_write, network, tokenizer))


def _write(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    # The weights are plain numbers now: what remains of the quantization would make readers look for the file.
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
    network.hf_quantizer = None
    network.is_quantized = False
    network.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
