"""The reward service's client. Needs httpx and pydantic alone."""

from rl_client.api.client import AsyncRewardClient, RewardClient
from rl_client.api.errors import (
    ApiConnectionError,
    ApiStatusError,
    ApiTimeoutError,
    ReplyError,
    RewardClientError,
)
from rl_client.api.reply_check import Pin
from rl_client.api.retry import RetryPolicy

__all__ = [
    "ApiConnectionError",
    "ApiStatusError",
    "ApiTimeoutError",
    "AsyncRewardClient",
    "Pin",
    "ReplyError",
    "RetryPolicy",
    "RewardClient",
    "RewardClientError",
]
