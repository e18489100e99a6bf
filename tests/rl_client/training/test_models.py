import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from rl_client.rollout.stages import TokenBatch
from rl_client.training.model_files import load_tokenizer
from rl_client.training.models import freeze_copy, init_policy, load_value


@pytest.fixture
def tokens():
    """Two prompts of unlike length, three responses: the first prompt has two of them."""
    return TokenBatch(
        prompt_ids=torch.tensor([[4, 5, 6, 1], [7, 1, 0, 0]]),
        prompt_mask=torch.tensor([[True] * 4, [True, True, False, False]]),
        prompt_index=torch.tensor([0, 1, 0]),
        response_ids=torch.tensor([[3, 4, 1], [5, 1, 0], [1, 0, 0]]),
        response_mask=torch.tensor([[True] * 3, [True, True, False], [True, False, False]]),
    )


def test_logits_are_those_of_each_pair_on_its_own(policy, tokens):
    logits = policy(tokens)
    pairs = [([4, 5, 6, 1], [3, 4, 1]), ([7, 1], [5, 1]), ([4, 5, 6, 1], [1])]
    for row, (prompt, response) in enumerate(pairs):
        alone = policy.network(input_ids=torch.tensor([prompt]), labels=torch.tensor([response])).logits
        torch.testing.assert_close(logits[row, : len(response)], alone[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("logits_at_once", [1, 24, 1 << 22])
def test_no_more_than_a_chunk_of_logits_exists_at_a_time(policy, tokens, monkeypatch, logits_at_once):
    """The vocabulary has 12 words, so that 24 logits are 2 tokens of the 6."""
    monkeypatch.setattr("rl_client.training.models.LOGITS_AT_ONCE", logits_at_once)
    asked = []
    policy.network.get_output_embeddings().register_forward_hook(lambda *of: asked.append(of[2].shape[0]))
    logprobs = policy.logprobs(policy.states(tokens), tokens, temperature=0.7)
    again, entropy = policy.logprobs_and_entropy(policy.states(tokens), tokens, temperature=0.7)
    assert max(asked) == min(6, max(1, logits_at_once // 12))
    distribution = torch.log_softmax(policy(tokens) / 0.7, dim=-1)
    mask = tokens.response_mask
    expected = torch.where(mask, distribution.gather(-1, tokens.response_ids[..., None])[..., 0], 0.0)
    torch.testing.assert_close(logprobs, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(again, logprobs)
    torch.testing.assert_close(entropy[mask], -(distribution.exp() * distribution).sum(-1)[mask], atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_each_pair_on_its_own(policy, tokens):
    """The shared prompt's gradient sums over its responses, through the encoder and the projections made once."""

    def gradients(loss):
        return torch.autograd.grad(loss, list(policy.parameters()))

    pairs = [([4, 5, 6, 1], [3, 4, 1]), ([7, 1], [5, 1]), ([4, 5, 6, 1], [1])]
    alone = [policy.network(input_ids=torch.tensor([p]), labels=torch.tensor([r])).logits for p, r in pairs]
    found = gradients(policy(tokens)[tokens.response_mask].square().sum())
    expected = gradients(sum(logits.square().sum() for logits in alone))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_values_read_the_decoder_state_from_which_each_token_is_chosen(value, tokens):
    values = value(tokens)
    hidden = value.network(
        input_ids=torch.tensor([[7, 1]]), decoder_input_ids=torch.tensor([[0, 5]]), output_hidden_states=True
    ).decoder_hidden_states[-1]
    expected = (hidden @ value.head.weight[0] + value.head.bias)[0]
    torch.testing.assert_close(values[1, :2], expected, atol=1e-5, rtol=1e-5)


def test_a_new_value_model_gives_zero_everywhere(policy_dir, tokens):
    assert torch.equal(load_value(policy_dir)(tokens), torch.zeros(3, 3))


def test_a_saved_value_model_keeps_its_head(value, tokens, tokenizer, tmp_path):
    value.save(tmp_path, tokenizer)
    assert torch.equal(load_value(tmp_path)(tokens), value(tokens))
    assert value(tokens).abs().sum() > 0


def test_a_saved_policy_is_a_plain_hugging_face_directory(policy, tokens, tokenizer, tmp_path):
    policy.save(tmp_path, tokenizer)
    network = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    plain = network(input_ids=torch.tensor([[7, 1]]), labels=torch.tensor([[5, 1]])).logits
    torch.testing.assert_close(plain[0], policy(tokens)[1, :2], atol=1e-5, rtol=1e-5)
    assert network.generation_config.eos_token_id == 1
    assert load_tokenizer(tmp_path).get_vocab() == tokenizer.get_vocab()
    assert not list(tmp_path.glob("*.bin"))


def test_the_reference_does_not_follow_the_policy(policy, tokens):
    reference = freeze_copy(policy)
    before = reference(tokens)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    assert torch.equal(reference(tokens), before)
    assert not any(parameter.requires_grad for parameter in reference.parameters())


def test_random_weights_follow_the_seed_and_leave_torch_alone(init_dir):
    state = torch.get_rng_state()
    a, b, c = init_policy(init_dir, 1), init_policy(init_dir, 1), init_policy(init_dir, 2)
    assert torch.equal(torch.get_rng_state(), state)
    weight = "network.decoder.block.0.layer.0.SelfAttention.q.weight"
    assert torch.equal(a.state_dict()[weight], b.state_dict()[weight])
    assert not torch.equal(a.state_dict()[weight], c.state_dict()[weight])
