from reward_service.compat_settings import Compat
from reward_service.web.compat.llama_factory import RewardsRequest, to_samples
from reward_service.web.compat.texts import Sample


def test_each_message_is_divided() -> None:
    wanted = RewardsRequest(model="model", messages=["q A: r", "s A: t"])
    assert to_samples(wanted, Compat(response_after=" A: ")) == [
        Sample("q", "r", cut=True),
        Sample("s", "t", cut=True),
    ]
