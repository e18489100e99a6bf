"""PPO on dense rewards in one straight line: prompts, generate, score, estimate, update, log, checkpoint."""

from contextlib import ExitStack
from functools import partial

import httpx
from transformers import PreTrainedTokenizerBase

from rl_client.api import RewardClientError
from rl_client.errors import KlLimitError, OtherProcessError, TooManyFailedScoresError
from rl_client.rollout.prompts import PromptSampler, load_prompts
from rl_client.rollout.score import RewardScorer, open_scorer
from rl_client.rollout.seeds import derive_seed
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.background import Background
from rl_client.training.checkpoint import CheckpointWriter, checkpoint_path
from rl_client.training.config import TrainConfig
from rl_client.training.experience import estimate, make_train_batch
from rl_client.training.interrupt import StopSignal
from rl_client.training.joint_rollout import JointRollout, check_shares, check_versions
from rl_client.training.metric_log import MetricLog, Metrics, NoLog
from rl_client.training.model_files import load_tokenizer
from rl_client.training.optim import use_threads
from rl_client.training.ppo_state import (
    PpoState,
    borrow_policy,
    build_state,
    pack_state,
    restore_state,
    train_digest,
)
from rl_client.training.ppo_step import ppo_update
from rl_client.training.processes import Processes
from rl_client.training.progress import ProgressReport
from rl_client.training.rollout_metrics import response_metrics, score_metrics
from rl_client.training.rollout_source import RolloutSource
from rl_client.training.run_folder import BEST_POLICY_FOLDER, VALUE_FOLDER, RunFolder, open_run, work_in
from rl_client.training.sample_page import SamplePages
from rl_client.training.sharding import check_sharded
from rl_client.training.time_table import TimeTable
from rl_client.training.timing import StepTimer
from rl_client.training.trackers import open_trackers

SHOWN = ("return", "reward/", "kl", "length_tokens", "step_s")


def train_ppo(config: TrainConfig, *, resume: bool, transport: httpx.BaseTransport | None = None) -> bool:
    """Train a policy with PPO.

    Args:
        config: The run's settings.
        resume: Whether to go on from the newest checkpoint.
        transport: An httpx transport in place of the network.

    Returns:
        Whether the run is finished; False if a signal stopped it, after a checkpoint.

    Raises:
        TrainingError: If the run cannot start or go on; see `rl_client.errors`.
        RewardClientError: If the service gave no usable answer within the retry budget; a checkpoint was written.
    """
    use_threads(config.threads)
    with ExitStack() as stack:
        processes = stack.enter_context(Processes.meet(config.device))
        stack.enter_context(processes.computing_together())
        check_shares(config, processes)
        check_sharded(config, processes.sharding)
        processes.together(lambda: stack.enter_context(work_in(config.output, writes=processes.is_main)))
        run = processes.together(lambda: open_run(config.output, train_digest(config), resume=resume))
        if run.is_finished(config.ppo.steps):
            return True
        opened = open_scorer(
            config.service, config.rewards, penalties=config.penalties, transport=transport, output=config.output
        )
        scorer = processes.together(lambda: stack.enter_context(opened))
        check_versions(scorer.versions, processes)
        state = build_state(config, processes.device, scorer.versions, processes.sharding)
        if run.checkpoint is not None:
            restore_state(state, run.checkpoint)
        return _train(config, run, state, scorer, processes)


def _train(config: TrainConfig, run: RunFolder, state: PpoState, scorer: RewardScorer, processes: Processes) -> bool:
    steps = config.ppo.steps
    tokenizer = load_tokenizer(config.policy)
    prompts = load_prompts(config, tokenizer)
    sampler = PromptSampler(
        prompts,
        prompts_per_step=config.ppo.prompts_per_step,
        seed=config.seed,
        rank=processes.rank,
        processes=processes.count,
    )
    # Not before the data is read: a folder that holds this file is taken for a run, and its name refused to another.
    if processes.is_main:
        run.write_run_file({"config": config.model_dump(mode="json"), "reward_models": scorer.versions})
    checkpoints = CheckpointWriter(
        run.checkpoints,
        config.checkpoint,
        partial(pack_state, state, config, run.digest, keep=processes.is_main),
        saved_step=run.start_step,
        best=state.best,
        writes=processes.is_main,
        packs=processes.sharding is not None,
    )
    quiet = not processes.is_main
    with (
        _open_log(config, run, processes) as log,
        ProgressReport("ppo", start_step=run.start_step, steps=steps, shown=SHOWN, quiet=quiet) as progress,
        TimeTable(progress) as times,
        Background(config.pipeline.concurrent_requests, "scoring") as scoring,
        Background(config.pipeline.staleness, "sampling", join=True) as sampling,
        StopSignal() as stop,
    ):
        checkpoints.precede(log.sync)
        samples = SamplePages(run.output, config.diagnostics, log)
        source = RolloutSource(config, state, scorer, tokenizer, sampler, sampling=sampling, scoring=scoring)
        for step in range(run.start_step + 1, steps + 1):
            try:
                metrics, scored = _take_step(step, config, state, source, scorer, processes)
            except (RewardClientError, TooManyFailedScoresError, OtherProcessError):
                checkpoints.save(step - 1)  # nothing was updated since
                processes.wait()  # a launcher ends all of them soon after one
                raise
            metrics = processes.from_main(metrics)  # so that all decide alike
            log.write(step, metrics)
            progress.update(step, metrics)
            times.add(metrics)
            if processes.is_main:
                samples.write_if_due(step, scored)
            state.best.note(metrics)
            kl_limit_reached = state.is_kl_limit_reached(metrics, config.ppo)
            checkpoints.save_if_due(step)
            if kl_limit_reached:
                checkpoints.save(step)
                processes.wait()
                raise KlLimitError(
                    f"KL to the reference is over max_kl {config.ppo.max_kl} for the {state.kl_overruns}th time; "
                    "raise kl_coefficient or lower learning_rate"
                )
            if received := processes.first(stop.received):
                checkpoints.save(step)
                processes.wait()
                progress.say(f"stopped by {received.name} after step {step}; go on with --resume")
                return False
    checkpoints.save(steps)
    with state.whole.gathered():
        if processes.is_main:
            _leave_models(run, steps, state, tokenizer)
        processes.wait()
    return True


def _open_log(config: TrainConfig, run: RunFolder, processes: Processes) -> MetricLog:
    if not processes.is_main:
        return NoLog()
    trackers = open_trackers(config.diagnostics, run.output, config.model_dump(mode="json"), after_step=run.start_step)
    return MetricLog(run.output, after_step=run.start_step, trackers=trackers)


def _leave_models(run: RunFolder, steps: int, state: PpoState, tokenizer: PreTrainedTokenizerBase) -> None:
    run.leave(VALUE_FOLDER, partial(state.whole.value.save, tokenizer=tokenizer))
    if state.best.step is not None:
        with borrow_policy(state, checkpoint_path(run.checkpoints, state.best.step)) as best:
            run.leave(BEST_POLICY_FOLDER, partial(best.save, tokenizer=tokenizer))
    run.leave_policy(steps, partial(state.whole.policy.save, tokenizer=tokenizer))


def _take_step(
    step: int,
    config: TrainConfig,
    state: PpoState,
    source: RolloutSource,
    scorer: RewardScorer,
    processes: Processes,
) -> tuple[Metrics, ScoredRollout]:
    ppo, temperature, trainee = config.ppo, config.generation.temperature, state.trainee
    timer = StepTimer(state.device)
    with state.whole.gathered():
        joint = JointRollout(processes, source, step, config.processes.scoring)
        timer.lap("generate_wait_s")
        with state.precision:
            estimates = joint.estimate(
                lambda: estimate(
                    joint.sampled.policy,
                    state.reference,
                    state.whole.value,
                    joint.mine.tokens.to(state.device),
                    temperature=temperature,
                    microbatch_size=ppo.microbatch_size or ppo.minibatch_size,
                    microbatch_tokens=ppo.microbatch_tokens,
                    exact_kl_tokens=config.diagnostics.exact_kl_tokens,
                    probe=joint.probe(config.diagnostics.exact_kl_tokens),
                )
            )
    timer.lap("forward_s")
    scored = state.reward_statistics.normalize(joint.scored(scorer))
    timer.lap("score_wait_s")
    tokens = joint.whole.tokens.to(state.device)
    batch, metrics = make_train_batch(scored, tokens, estimates, ppo, state.kl_control)
    timer.lap("advantage_s")
    source.advance(step)
    update_policy = step > ppo.value_warmup_steps
    metrics |= ppo_update(
        trainee,
        batch,
        ppo,
        temperature=temperature,
        seed=derive_seed(config.seed, "update", step),
        update_policy=update_policy,
        precision=state.precision,
        timer=timer,
        processes=processes,
    )
    state.tick(metrics, updated_policy=update_policy)
    timer.lap("update_optimizer_s")
    metrics = score_metrics(scored) | response_metrics(joint.whole) | metrics
    metrics |= timer.phases_s | {"generate_s": joint.sampled.generate_s, "update_s": timer.sum_s("update_")}
    return metrics | {"step_s": timer.total_s}, scored
