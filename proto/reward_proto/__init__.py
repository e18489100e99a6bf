"""The wire contract between reward_service and rl_client: pydantic models, and nothing of either side."""

from reward_proto.digest import item_digest, text_digest
from reward_proto.errors import HTTP_STATUS, RETRY_AFTER, RETRYABLE, ErrorBody, ErrorCode, ErrorReply, ScoreError
from reward_proto.models import Calibration, LoadRequest, ModelInfo, ModelKind, ModelList, ModelState
from reward_proto.score import (
    Granularity,
    ItemResult,
    ModelScore,
    ScoreItem,
    ScoreReply,
    ScoreRequest,
    SegmentReply,
    SegmentRequest,
    SegmentScore,
    Usage,
)
from reward_proto.version import API_VERSION, CONTRACT_VERSION

__all__ = [
    "API_VERSION",
    "CONTRACT_VERSION",
    "HTTP_STATUS",
    "RETRYABLE",
    "RETRY_AFTER",
    "Calibration",
    "ErrorBody",
    "ErrorCode",
    "ErrorReply",
    "Granularity",
    "ItemResult",
    "LoadRequest",
    "ModelInfo",
    "ModelKind",
    "ModelList",
    "ModelScore",
    "ModelState",
    "ScoreError",
    "ScoreItem",
    "ScoreReply",
    "ScoreRequest",
    "SegmentReply",
    "SegmentRequest",
    "SegmentScore",
    "Usage",
    "item_digest",
    "text_digest",
]
