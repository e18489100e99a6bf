"""An offline toxicity reward as a callable: the linear classifier of the PyPI package alt-profanity-check.

    - source: callable
      name: profanity
      function: reward_service.text_rewards.profanity:score
      kind: classifier
      packages: [alt-profanity-check]

The package ships its classifier as joblib pickles and loads them when it is imported: code of that package, trusted
like the rest of it.
"""

from profanity_check import predict_prob

from reward_service.text_rewards.callable_reward import RewardInput


def score(responses: list[RewardInput]) -> list[list[float]]:
    """P(not toxic) of each segment of each response, in [0, 1]."""
    texts = [segment for response in responses for segment in response.segments]
    ok = iter(1.0 - predict_prob(texts)) if texts else iter(())
    return [[float(next(ok)) for _ in response.segments] for response in responses]
