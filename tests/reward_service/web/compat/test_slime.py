from typing import Any

import pytest

from reward_service.web.compat.slime import RmRequest, to_sample
from reward_service.web.compat.texts import Sample


@pytest.mark.parametrize(
    ("request_body", "sample"),
    [
        ({"prompt": "p", "response": " r ", "label": "l"}, Sample("p", " r ", "l")),
        ({"prompt": "p", "response": "r", "label": {"a": 1}}, Sample("p", "r")),
        ({"prompt": "p", "response": "r"}, Sample("p", "r")),
        (
            {
                "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "x"}],
                "response": "r",
            },
            Sample("s\nu", "r"),
        ),
    ],
)
def test_prompts_are_texts_or_turns(request_body: dict[str, Any], sample: Sample) -> None:
    assert to_sample(RmRequest.model_validate(request_body, strict=True)) == sample
