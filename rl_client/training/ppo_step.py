"""One PPO update: epochs of mini-batches over a `TrainBatch`."""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from rl_client.algorithms.ppo_loss import PolicyLoss, ValueLoss, policy_loss, value_loss
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import TokenBatch, TrainBatch
from rl_client.training.config import PpoSettings
from rl_client.training.metric_log import Metrics
from rl_client.training.microbatches import Limits, divide
from rl_client.training.models import PolicyModel, ValueModel
from rl_client.training.optim import clip_and_step
from rl_client.training.processes import Processes
from rl_client.training.timing import StepTimer

FIGURES = (
    "policy_loss",
    "value_loss",
    "clip_fraction",
    "value_clip_fraction",
    "approx_kl",
    "ratio_mean",
    "ratio_max",
)
"""Of a mini-batch."""


@dataclass(frozen=True, slots=True)
class Trainee:
    """The two models in training and their optimizers."""

    policy: PolicyModel
    value: ValueModel
    policy_optimizer: Optimizer
    value_optimizer: Optimizer


def ppo_update(
    trainee: Trainee,
    batch: TrainBatch,
    settings: PpoSettings,
    *,
    temperature: float,
    seed: int,
    update_policy: bool = True,
    precision: AbstractContextManager[object] | None = None,
    timer: StepTimer | None = None,
    processes: Processes | None = None,
) -> Metrics:
    """Train policy and value model on a batch.

    The policy's loss and the value model's are summed over tokens and divided by the mini-batch's number of tokens, so
    the size of micro-batches changes no gradient.

    Args:
        trainee: Changed in place.
        batch: B responses with advantages and returns.
        settings: Epochs, batch sizes, clip ranges.
        temperature: That of sampling.
        seed: Orders the responses, afresh in each epoch.
        update_policy: Whether the policy learns; False while only the value model warms up.
        precision: Context of the forward passes.
        timer: Told when policy, value model and optimizers have had their turns.
        processes: Share each mini-batch, all with the same arguments; one when None.

    Returns:
        Figures averaged over the mini-batches of all epochs; `ratio_max` is the largest.

    Raises:
        NotFiniteError: If a gradient is NaN or infinite.
    """
    precision = precision or nullcontext()
    timer = timer or StepTimer()
    figures: dict[str, list[float]] = defaultdict(list)
    for epoch in range(settings.epochs):
        for rows in minibatches(batch, settings.minibatch_size, derive_seed(seed, "minibatches", epoch)):
            minibatch = batch.select(rows.to(batch.returns.device))
            found = accumulate_gradients(
                trainee,
                minibatch,
                settings,
                temperature=temperature,
                update_policy=update_policy,
                precision=precision,
                timer=timer,
                processes=processes,
            )
            max_norm = settings.max_grad_norm
            if update_policy:
                norm = clip_and_step(trainee.policy, trainee.policy_optimizer, max_grad_norm=max_norm, name="policy")
                found["policy_grad_norm"] = norm
            norm = clip_and_step(trainee.value, trainee.value_optimizer, max_grad_norm=max_norm, name="value model")
            found["value_grad_norm"] = norm
            timer.lap("update_optimizer_s")
            for name, figure in found.items():
                figures[name].append(figure)
    metrics: Metrics = {name: sum(values) / len(values) for name, values in figures.items()}
    metrics["ratio_max"] = max(figures["ratio_max"])
    return metrics


def accumulate_gradients(
    trainee: Trainee,
    minibatch: TrainBatch,
    settings: PpoSettings,
    *,
    temperature: float,
    update_policy: bool,
    precision: AbstractContextManager[object],
    timer: StepTimer | None = None,
    processes: Processes | None = None,
) -> dict[str, float]:
    """Add a mini-batch's gradients, a micro-batch at a time.

    Returns:
        The mini-batch's losses and figures, whatever the micro-batches and however many the processes were.
    """
    timer = timer or StepTimer()
    processes = processes or Processes(minibatch.tokens.response_ids.device)
    limits = Limits(
        settings.microbatch_size, settings.microbatch_tokens, share_prompts=trainee.policy.reader.shares_prompts
    )
    totals: dict[str, Tensor] = {}
    for rows, normalizer in _microbatches(minibatch.tokens, processes, limits):
        part = minibatch.select(rows)
        policy, value = _part_gradients(
            trainee,
            part,
            settings,
            temperature=temperature,
            normalizer=normalizer,
            update_policy=update_policy,
            precision=precision,
            timer=timer,
        )
        sums = {
            "policy_loss": policy.loss.detach(),
            "value_loss": value.loss.detach(),
            "clip_fraction": policy.clip_fraction,
            "value_clip_fraction": value.clip_fraction,
            "approx_kl": policy.approx_kl,
            "ratio_mean": policy.ratio_mean,
        }
        for name, figure in sums.items():
            totals[name] = totals[name] + figure if name in totals else figure
        ratio_max = policy.ratio_max.detach()
        totals["ratio_max"] = torch.maximum(totals["ratio_max"], ratio_max) if "ratio_max" in totals else ratio_max
    learning = [*(trainee.policy.parameters() if update_policy else ()), *trainee.value.parameters()]
    processes.sum_gradients({id(parameter): parameter for parameter in learning}.values())
    return dict(zip(FIGURES, processes.add(totals, FIGURES, largest=("ratio_max",)), strict=True))


def _microbatches(tokens: TokenBatch, processes: Processes, limits: Limits) -> list[tuple[Tensor, float]]:
    """Rows of each micro-batch of this process's rows, and what its losses are divided by.

    Where weights are divided every process takes part in every forward: who has fewer micro-batches than another reads
    one response for nothing, its losses divided by infinity. It is another's too, so that even a maximum is the same.
    """
    normalizer = float(tokens.response_mask.sum())
    parts = [(rows, normalizer) for rows in _own_microbatches(tokens, processes.share_rows(len(tokens)), limits)]
    if processes.sharding is not None:
        shares = [processes.share_rows(len(tokens), rank) for rank in range(processes.count)]
        most = max(len(_own_microbatches(tokens, share, limits)) for share in shares)
        parts += [(torch.zeros_like(shares[-1][:1]), math.inf)] * (most - len(parts))
    return parts


def _own_microbatches(tokens: TokenBatch, mine: Tensor, limits: Limits) -> Sequence[Tensor]:
    """None where there are no rows."""
    if len(mine) == len(tokens):
        return divide(tokens, limits)
    return [mine[rows] for rows in divide(tokens.select(mine), limits)] if len(mine) else []


def _part_gradients(
    trainee: Trainee,
    part: TrainBatch,
    settings: PpoSettings,
    *,
    temperature: float,
    normalizer: float,
    update_policy: bool,
    precision: AbstractContextManager[object],
    timer: StepTimer,
) -> tuple[PolicyLoss, ValueLoss]:
    """Add a micro-batch's gradients; see `accumulate_gradients`."""
    mask = part.tokens.response_mask
    with precision, torch.set_grad_enabled(update_policy):
        states, logprobs = trainee.policy.read(part.tokens, temperature=temperature)
    policy = policy_loss(
        logprobs, part.old_logprobs, part.advantages, mask, clip_range=settings.clip_range, normalizer=normalizer
    )
    losses = [policy.loss] if update_policy else []
    if losses and not trainee.value.shares_trunk:
        # Before the value model reads, so that the activations of one model exist at a time.
        losses.pop().backward()  # type: ignore[no-untyped-call]
    timer.lap("update_policy_s")
    with precision:
        values = trainee.value(part.tokens, states if trainee.value.shares_trunk else None)
    value = value_loss(
        values, part.old_values, part.returns, mask, clip_range=settings.value_clip_range, normalizer=normalizer
    )
    losses.append(settings.value_coefficient * value.loss)
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
    timer.lap("update_value_s")
    return policy, value


def minibatches(batch: TrainBatch, size: int, seed: int) -> Iterator[Tensor]:
    """Row numbers of each mini-batch: prompts in a seeded order, the samples of one prompt next to each other.

    Samples that stand together share one pass of their prompt through the encoder.

    Args:
        batch: B responses.
        size: Responses in a mini-batch; the last may be smaller.
        seed: The order depends on this alone.
    """
    prompt_index = batch.tokens.prompt_index.cpu()
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(int(prompt_index.max()) + 1, generator=generator)
    order = torch.argsort(place[prompt_index], stable=True)
    yield from torch.split(order, size)
