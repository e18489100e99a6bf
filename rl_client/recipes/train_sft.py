"""Supervised fine-tuning as one straight line: demonstrations, batch, loss, update, held-out loss, log, checkpoint."""

from functools import partial

from rl_client.training.checkpoint import CheckpointWriter
from rl_client.training.config import SftConfig
from rl_client.training.demonstrations import (
    Demonstration,
    DemonstrationSampler,
    collate_demonstrations,
    load_demonstrations,
)
from rl_client.training.interrupt import StopSignal
from rl_client.training.metric_log import MetricLog, Metrics
from rl_client.training.model_files import load_tokenizer
from rl_client.training.optim import clip_and_step, pick_device, use_threads
from rl_client.training.progress import ProgressReport
from rl_client.training.run_folder import RunFolder, open_run, work_in
from rl_client.training.sft_state import SftState, build_sft_state, pack_sft_state, restore_sft_state, sft_digest
from rl_client.training.sft_step import held_out_loss, token_losses
from rl_client.training.timing import StepTimer

SHOWN = ("loss", "dev_loss", "learning_rate", "step_s")


def train_sft(config: SftConfig, *, resume: bool) -> bool:
    """Fine-tune a policy on demonstrations.

    Args:
        config: The run's settings.
        resume: Whether to go on from the newest checkpoint.

    Returns:
        Whether the run is finished; False if a signal stopped it, after a checkpoint.

    Raises:
        TrainingError: If the run cannot start or go on; see `rl_client.errors`.
    """
    with work_in(config.output):
        run = open_run(config.output, sft_digest(config), resume=resume)
        return run.is_finished(config.training.steps) or _train(config, run)


def _train(config: SftConfig, run: RunFolder) -> bool:
    training = config.training
    use_threads(config.threads)
    tokenizer = load_tokenizer(config.model)
    train = load_demonstrations(config.data.train, tokenizer, training)
    dev = load_demonstrations(config.data.dev, tokenizer, training) if config.data.dev else []
    sampler = DemonstrationSampler(train, batch_size=training.batch_size, seed=config.seed)
    state = build_sft_state(config, pick_device(config.device))
    if run.checkpoint is not None:
        restore_sft_state(state, run.checkpoint)
    run.write_run_file({"config": config.model_dump(mode="json")})
    pack = partial(pack_sft_state, state, config, run.digest)
    checkpoints = CheckpointWriter(run.checkpoints, config.checkpoint, pack, saved_step=run.start_step)
    with (
        MetricLog(run.output, after_step=run.start_step) as log,
        ProgressReport("sft", start_step=run.start_step, steps=training.steps, shown=SHOWN) as progress,
        StopSignal() as stop,
    ):
        checkpoints.precede(log.sync)
        for step in range(run.start_step + 1, training.steps + 1):
            metrics = _take_step(config, state, sampler.take(step), tokenizer.pad_token_id)
            if dev and (step % training.eval_every_steps == 0 or step == training.steps):
                metrics["dev_loss"] = held_out_loss(
                    state.policy,
                    dev,
                    batch_size=training.batch_size,
                    pad_id=tokenizer.pad_token_id,
                    precision=state.precision,
                )
            log.write(step, metrics)
            progress.update(step, metrics)
            checkpoints.save_if_due(step)
            if stop.received:
                checkpoints.save(step)
                progress.say(f"stopped by {stop.received.name} after step {step}; go on with --resume")
                return False
    checkpoints.save(training.steps)
    run.leave_policy(training.steps, partial(state.policy.save, tokenizer=tokenizer))
    return True


def _take_step(config: SftConfig, state: SftState, demonstrations: list[Demonstration], pad_id: int) -> Metrics:
    timer = StepTimer()
    tokens = collate_demonstrations(demonstrations, pad_id).to(state.device)
    with state.precision:
        logits = state.policy(tokens)
    loss = token_losses(logits, tokens).mean()
    loss.backward()  # type: ignore[no-untyped-call]
    learning_rate = state.schedule.get_last_lr()[0]
    norm = clip_and_step(state.policy, state.optimizer, max_grad_norm=config.training.max_grad_norm, name="policy")
    state.schedule.step()
    return {
        "loss": float(loss.detach()),
        "grad_norm": norm,
        "learning_rate": float(learning_rate),
        "tokens": float(tokens.response_mask.sum()),
        "step_s": timer.total_s,
    }
