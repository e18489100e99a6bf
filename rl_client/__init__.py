"""Dense-reward RLHF: rollouts, rewards from a reward service, and PPO. `rl_client.api` needs no torch."""

__version__ = "0.1.0"
