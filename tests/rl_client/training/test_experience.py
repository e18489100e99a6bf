import pytest
import torch

from rl_client.errors import TooManyFailedScoresError
from rl_client.rollout.generate import generate
from rl_client.rollout.stages import ScoredRollout
from rl_client.training.config import GenerationSettings, PpoSettings
from rl_client.training.experience import Estimates, estimate, make_train_batch, spread_tokens
from rl_client.training.kl_control import KlControl
from rl_client.training.models import freeze_copy
from rl_client.training.settings_kl import KlSettings

PPO = PpoSettings(steps=1, prompts_per_step=4, minibatch_size=4, kl_coefficient=0.5, whiten_advantages=False)


@pytest.fixture
def rollout(policy, tokenizer, prompts):
    return generate(policy, tokenizer, prompts, GenerationSettings(max_new_tokens=7, samples_per_prompt=2), seed=4)


def scored(rollout, token_rewards, failed=None) -> ScoredRollout:
    failed = torch.zeros(len(rollout.tokens), dtype=torch.bool) if failed is None else failed
    return ScoredRollout(rollout, token_rewards, failed, {}, {})


def random_estimates(mask) -> Estimates:
    generator = torch.Generator().manual_seed(0)
    columns = [torch.where(mask, torch.randn(mask.shape, generator=generator), 0.0) for _ in range(4)]
    return Estimates(*columns)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_estimates_do_not_depend_on_the_chunks(policy, value, rollout, temperature):
    """Against one plain forward of everything and a log-softmax of the divided logits."""
    reference = freeze_copy(policy)
    with torch.no_grad():
        policy.network.shared.weight.mul_(1.3)
    mask = rollout.tokens.response_mask
    found = estimate(policy, reference, value, rollout.tokens, temperature=temperature, microbatch_size=3)
    for column, model in ((found.logprobs, policy), (found.ref_logprobs, reference)):
        distribution = torch.log_softmax(model(rollout.tokens) / temperature, dim=-1)
        expected = distribution.gather(-1, rollout.tokens.response_ids[..., None])[..., 0]
        torch.testing.assert_close(column[mask], expected[mask], atol=1e-5, rtol=1e-5)
    probabilities = torch.softmax(policy(rollout.tokens) / temperature, dim=-1)
    entropy = -(probabilities * probabilities.log()).sum(-1)
    torch.testing.assert_close(found.entropy[mask], entropy[mask], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.values[mask], value(rollout.tokens)[mask], atol=1e-5, rtol=1e-5)
    for column in (found.logprobs, found.ref_logprobs, found.values, found.entropy):
        assert not column.requires_grad
        assert (column[~mask] == 0).all()


def test_the_batch_against_a_slow_loop(rollout):
    mask = rollout.tokens.response_mask
    estimates = random_estimates(mask)
    token_rewards = torch.where(mask, torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)), 0.0)
    batch, metrics = make_train_batch(scored(rollout, token_rewards), rollout.tokens, estimates, PPO)
    for row, length in enumerate(mask.sum(1).tolist()):
        kl = (estimates.logprobs - estimates.ref_logprobs)[row]
        rewards = [float(token_rewards[row, t] - 0.5 * kl[t]) for t in range(length)]
        values = [*estimates.values[row, :length].tolist(), 0.0]
        for t in range(length):
            deltas = [rewards[i] + values[i + 1] - values[i] for i in range(t, length)]
            advantage = sum(delta * 0.95**i for i, delta in enumerate(deltas))
            assert float(batch.advantages[row, t]) == pytest.approx(advantage, abs=1e-5)
            assert float(batch.returns[row, t]) == pytest.approx(advantage + values[t], abs=1e-5)
    assert metrics["return"] == pytest.approx(float(token_rewards.sum()) / len(mask))
    assert metrics["kl"] == pytest.approx(
        float((estimates.logprobs - estimates.ref_logprobs).sum()) / len(mask), abs=1e-5
    )


@pytest.mark.parametrize("limit", [1, 3, 10**6])
def test_exact_kl_against_whole_distributions(policy, value, rollout, limit):
    """With room for every token it is the mean over responses of the sum of each token's divergence."""
    reference = freeze_copy(policy)
    with torch.no_grad():
        policy.network.shared.weight.mul_(1.3)
    mask = rollout.tokens.response_mask
    found = estimate(
        policy, reference, value, rollout.tokens, temperature=0.7, microbatch_size=3, exact_kl_tokens=limit
    )
    p, q = (torch.softmax(model(rollout.tokens).detach() / 0.7, dim=-1) for model in (policy, reference))
    divergence = (p * (p / q).log()).sum(-1)
    chosen = spread_tokens(mask, limit)
    assert chosen.sum() <= limit
    assert not (chosen & ~mask).any()
    expected = float(divergence[chosen].mean()) * float(mask.sum()) / len(mask)
    assert found.exact_kl == pytest.approx(expected, rel=1e-4)
    if limit > mask.sum():
        assert torch.equal(chosen, mask)
        assert found.exact_kl == pytest.approx(float(torch.where(mask, divergence, 0.0).sum(1).mean()), rel=1e-4)


def test_tokens_are_spread_evenly():
    mask = torch.tensor([[True, True, True, False], [True, False, False, False], [True, True, False, False]])
    assert torch.nonzero(spread_tokens(mask, 3)).tolist() == [[0, 0], [0, 2], [2, 0]]
    assert not spread_tokens(mask, 0).any()


def test_a_rollout_without_any_score_is_refused(rollout):
    mask = rollout.tokens.response_mask
    with pytest.raises(TooManyFailedScoresError, match="none of 8 responses"):
        make_train_batch(
            scored(rollout, 0.0 * mask, torch.ones(8, dtype=torch.bool)), rollout.tokens, random_estimates(mask), PPO
        )


@pytest.mark.parametrize(("estimator", "paid"), [("k1", lambda x: x), ("k2", lambda x: x * x / 2)])
def test_the_kl_control_prices_the_tokens(rollout, estimator, paid):
    mask = rollout.tokens.response_mask
    estimates = random_estimates(mask)
    settings = PPO.model_copy(update={"gae_lambda": 1.0})
    control = KlControl(KlSettings(estimator=estimator), 0.7)
    batch, metrics = make_train_batch(scored(rollout, 0.0 * mask), rollout.tokens, estimates, settings, control)
    kl = paid(estimates.logprobs - estimates.ref_logprobs) * mask
    torch.testing.assert_close(batch.returns[:, 0], -0.7 * kl.sum(1), atol=1e-5, rtol=1e-4)
    assert metrics["component/kl"] == pytest.approx(float(kl.sum(1).mean()), abs=1e-5)
    assert metrics["kl_coefficient"] == 0.7


def test_failed_responses_are_left_out(rollout):
    mask = rollout.tokens.response_mask
    failed = torch.zeros(len(mask), dtype=torch.bool)
    failed[[1, 4]] = True
    estimates = random_estimates(mask)
    batch, metrics = make_train_batch(
        scored(rollout, torch.ones(mask.shape) * mask, failed), rollout.tokens, estimates, PPO
    )
    kept = [0, 2, 3, 5, 6, 7]
    width = batch.old_logprobs.shape[1]
    assert torch.equal(batch.old_logprobs, estimates.logprobs[kept, :width])
    assert torch.equal(batch.tokens.response_ids, rollout.tokens.response_ids[kept, :width])
    assert metrics["return"] == pytest.approx(float(mask[kept].sum(1).float().mean()))


def test_whitened_advantages_have_mean_0_and_std_1_over_real_tokens(rollout):
    mask = rollout.tokens.response_mask
    settings = PPO.model_copy(update={"whiten_advantages": True})
    batch, _ = make_train_batch(scored(rollout, 1.0 * mask), rollout.tokens, random_estimates(mask), settings)
    real = batch.advantages[batch.tokens.response_mask]
    assert float(real.mean()) == pytest.approx(0, abs=1e-5)
    assert float(real.std(unbiased=False)) == pytest.approx(1, abs=1e-4)
    assert (batch.advantages[~batch.tokens.response_mask] == 0).all()


def test_whitened_rewards_keep_their_mean(rollout):
    """With values 0, lambda 1 and gamma 1 the first return is the sum of the rewards."""
    mask = rollout.tokens.response_mask
    zero = torch.zeros(mask.shape)
    rewards = torch.where(mask, torch.randn(mask.shape, generator=torch.Generator().manual_seed(2)) + 3, 0.0)
    settings = PPO.model_copy(update={"whiten_rewards": True, "gae_lambda": 1.0})
    batch, _ = make_train_batch(scored(rollout, rewards), rollout.tokens, Estimates(zero, zero, zero, zero), settings)
    real = rewards[mask]
    whitened = (rewards - real.mean()) / real.std(unbiased=False) + real.mean()
    expected = torch.where(mask, whitened, 0.0).sum(1)
    torch.testing.assert_close(batch.returns[:, 0], expected, atol=1e-4, rtol=1e-4)
