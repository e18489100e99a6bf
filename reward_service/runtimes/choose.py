"""`runtime: auto`: measure what passes the gate on this machine, take the fastest, and remember it."""

import hashlib
import json
import logging
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_service.config import PRECISIONS, Batching, ModelSettings, Precision, Runtime
from reward_service.core.backend import Backend, divide
from reward_service.core.division import Division
from reward_service.errors import ModelFailedError, ParityError, StoreError
from reward_service.registry import files as model_files
from reward_service.registry.exports import EXPORT_FILE, ExportRecord
from reward_service.registry.store import Published
from reward_service.runtimes.gate import Gate
from reward_service.runtimes.load import ONNX_FP32, REFERENCE, find_record, make_backend, open_gate, runtime_name
from reward_service.runtimes.machine import environment, is_installed, usable_cores

logger = logging.getLogger(__name__)

CHOICES_FILE = "choices.json"

MEASURED_TOKENS = 2048
"""Of one measurement of one runtime."""

MIN_ROUNDS, MAX_ROUNDS = 3, 9
BUDGET_S = 4.0
"""No further round begins after so long; loading and the gate come on top."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A runtime and precision that may be chosen.

    Attributes:
        runtime: An installed one.
        precision: In which it computes.
        record: What let it in; None for the reference itself.
    """

    runtime: Runtime
    precision: Precision
    record: ExportRecord | None

    @property
    def name(self) -> str:
        """Such as `openvino-bf16`."""
        return runtime_name(self.runtime, self.precision)


def choose_division(published: Published, wanted: ModelSettings, batching: Batching) -> Division:
    """Load the fastest runtime that passes the gate here, as measured or as remembered from an earlier measurement.

    Args:
        published: The version.
        wanted: Its precision, where there is one, and its device restrict the choice.
        batching: Threads, and the batches that are compared and measured.

    Raises:
        StoreError: Nothing can compute the model, or files of an export were changed.
    """
    found = candidates(published, wanted)
    label = f"{published.name}@{published.version}"
    if not found:
        raise StoreError(_nothing_to_choose(published, wanted))
    if [candidate.name for candidate in found] == [REFERENCE]:
        logger.info("%s: no export to choose from besides torch in fp32", label)
        return Division(_open(published, found[0], wanted, batching))
    conditions = _conditions(published, found, wanted, batching)
    remembered = _remembered(published, conditions)
    for candidate in found:
        if candidate.name == remembered:
            logger.info("%s: %s, the fastest when it was measured here", label, remembered)
            return Division(_open(published, candidate, wanted, batching))
    divisions, refused = _let_in(published, found, wanted, batching)
    gate = open_gate(published, _first_record(found), batching)
    rates = measure(gate, divisions)
    best = max(rates, key=rates.__getitem__)
    told = ", ".join(f"{name} {rate:,.0f}" for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]))
    logger.info("%s: chose %s of (tokens/s): %s", label, best, told)
    choice = {"runtime": best, "tokens_per_s": rates, "refused": refused, "conditions": conditions}
    _remember(published, _key(conditions), choice)
    for name, division in divisions.items():
        if name != best:
            division.close()
    return divisions[best]


def candidates(published: Published, wanted: ModelSettings) -> list[Candidate]:
    """What is installed, wanted, and either torch in fp32 or compared with it at an export.

    Raises:
        StoreError: Files of an export were changed.
    """
    found: list[Candidate] = []
    for runtime in _allowed(wanted.device):
        for precision in Precision:
            if precision not in PRECISIONS[runtime] or wanted.precision not in (None, precision):
                continue
            if precision is Precision.INT8 and wanted.device != "cpu":
                continue
            name = runtime_name(runtime, precision)
            source = ONNX_FP32 if name == "openvino-fp32" else name
            if name == REFERENCE:
                found.append(Candidate(runtime, precision, None))
            elif published.export_path(source).is_dir() or published.export_path(name).is_dir():
                found.append(Candidate(runtime, precision, find_record(published, name)))
    return found


def measure(gate: Gate, divisions: dict[str, Division]) -> dict[str, float]:
    """Median tokens a second of each runtime, in turn round after round, so that the machine's other load meets all."""
    rates: dict[str, list[float]] = {name: [] for name in divisions}
    begin_s = time.perf_counter()
    for done in range(MAX_ROUNDS if len(divisions) > 1 else 1):
        if done >= MIN_ROUNDS and time.perf_counter() - begin_s > BUDGET_S:
            break
        for name, division in divisions.items():
            rates[name].append(gate.measure(division.lanes, MEASURED_TOKENS))
    return {name: statistics.median(measured) for name, measured in rates.items()}


def _let_in(
    published: Published, found: list[Candidate], wanted: ModelSettings, batching: Batching
) -> tuple[dict[str, Division], dict[str, str]]:
    """Load every candidate and compare it here; returns what passes, and why the others do not."""
    divisions: dict[str, Division] = {}
    refused: dict[str, str] = {}
    for candidate in found:
        backend: Backend | None = None
        try:
            backend = _open(published, candidate, wanted, batching)
            if candidate.record is not None:
                open_gate(published, candidate.record, batching).check(backend, candidate.precision)
            divisions[candidate.name] = Division(backend)
        except (StoreError, ParityError, ModelFailedError, RuntimeError) as error:
            logger.warning("%s is not used: %s", candidate.name, error)
            refused[candidate.name] = str(error)
            if backend is not None:
                backend.close()
    if not divisions:
        faults = "; ".join(refused.values())
        raise StoreError(f"{published.name}@{published.version}: no runtime can be used: {faults}")
    return divisions, refused


def _open(published: Published, candidate: Candidate, wanted: ModelSettings, batching: Batching) -> Backend:
    return make_backend(
        published, candidate.runtime, candidate.precision, threads=batching.threads, device=wanted.device
    )


def _first_record(found: list[Candidate]) -> ExportRecord:
    return next(candidate.record for candidate in found if candidate.record is not None)


def _nothing_to_choose(published: Published, wanted: ModelSettings) -> str:
    precision = wanted.precision or Precision.FP32
    label = f"{published.name}@{published.version}"
    for runtime in _allowed(wanted.device):
        if precision in PRECISIONS[runtime]:
            return (
                f"{label}: no export to choose from in {precision}: run `reward-service export {published.name} "
                f"--runtime {runtime} --precision {precision}`"
            )
    return f"{label}: no runtime that is installed computes in {precision} on {wanted.device}"


def _allowed(device: str) -> list[Runtime]:
    """Installed runtimes that know the device."""
    runtimes = [Runtime.OPENVINO] if device == "cpu" else []
    return [one for one in [*runtimes, Runtime.ONNXRUNTIME, Runtime.TORCH] if is_installed(one)]


def _conditions(
    published: Published, found: list[Candidate], wanted: ModelSettings, batching: Batching
) -> dict[str, Any]:
    """Everything that a measurement depends on."""
    return {
        "device": wanted.device,
        "cores": usable_cores(),
        "threads": batching.threads,
        "lanes": divide(batching.threads)[0] if wanted.device == "cpu" else 1,
        "max_batch_tokens": batching.max_batch_tokens,
        "max_padding": batching.max_padding,
        "candidates": {
            candidate.name: environment(candidate.runtime, wanted.device).model_dump() for candidate in found
        },
        "exports": {
            candidate.name: model_files.sha256_of(published.export_path(candidate.record.runtime) / EXPORT_FILE)
            for candidate in found
            if candidate.record is not None
        },
    }


def _key(conditions: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()


def _remembered(published: Published, conditions: dict[str, Any]) -> str | None:
    path = published.exports_path / CHOICES_FILE
    found = model_files.read_json_object(path).get(_key(conditions)) if path.exists() else None
    return str(found.get("runtime")) if isinstance(found, dict) else None


def _remember(published: Published, key: str, choice: dict[str, Any]) -> None:
    path: Path = published.exports_path / CHOICES_FILE
    try:
        with model_files.locked(path.parent):
            content = model_files.read_json_object(path) if path.exists() else {}
            staged = path.with_name(f".{CHOICES_FILE}.{os.getpid()}")
            text = json.dumps({**content, key: choice}, indent=2, sort_keys=True)
            model_files.write_durably(staged, text.encode())
            staged.replace(path)
    except OSError as error:
        logger.warning("%s: cannot be written, so the next start measures again: %s", path, error)
