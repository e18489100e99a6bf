"""Changed settings: what is served follows them, or stays as it was."""

import pytest

from reward_service.config import AnyModelSettings, ModelSettings, Runtime
from reward_service.core.source import ScoreSource
from reward_service.errors import ConfigError, InvalidRequestError, NotInStoreError
from reward_service.registry.cards import make_cards
from tests.reward_service.held_lineup import HeldSource, Stage, on_stage


def test_following_the_settings_loads_moves_and_unloads_at_once() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("b", "020000000000", "best")
        stage.store.put("c", "030000000000")
        await stage.lineup.follow([ModelSettings(name="b@best", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert list(stage.scorer.models) == ["b", "c"]
        assert await stage.score("b", "c") == [2.0, 3.0]
        built = len(stage.built)
        await stage.lineup.follow(
            [ModelSettings(name="b@020000000000", runtime=Runtime.TORCH), ModelSettings(name="c")]
        )
        assert len(stage.built) == built, "nothing has changed but how the version is named"
        stage.store.put("b", "040000000000", "best")
        await stage.lineup.follow([ModelSettings(name="b@best", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert await stage.score("b", "c") == [4.0, 3.0]
        assert len(stage.built) == built + 1

    on_stage(act)


def test_following_faulty_settings_changes_nothing() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("a", "020000000000")
        with pytest.raises(NotInStoreError):
            await stage.lineup.follow([ModelSettings(name="a", runtime=Runtime.TORCH), ModelSettings(name="nobody")])
        assert stage.built[2].closed.is_set(), "what was loaded in vain is ended"
        assert await stage.score("a", "b") == [1.0, 1.0]

    on_stage(act)


def test_names_must_stay_unique() -> None:
    async def act(stage: Stage) -> None:
        stage.store.put("c", "030000000000")
        build = stage.build

        def of_two_heads(wanted: AnyModelSettings) -> ScoreSource:
            source = build(wanted)
            assert isinstance(source, HeldSource)
            card = source.cards[0]
            other = make_cards(stage.store.find("b"), "held-fp32")[0]
            source.cards = (card, other)
            return source

        stage.lineup._build = of_two_heads
        with pytest.raises(InvalidRequestError, match="b is served twice"):
            await stage.lineup.load("c", "latest")
        await stage.lineup.follow([ModelSettings(name="a", runtime=Runtime.TORCH), ModelSettings(name="c")])
        assert list(stage.scorer.models) == ["a", "c", "b"]
        with pytest.raises(InvalidRequestError, match="a part of 'c'"):
            await stage.lineup.unload("b")
        with pytest.raises(ConfigError):
            await stage.lineup.follow([ModelSettings(name="b", runtime=Runtime.TORCH), ModelSettings(name="c")])

    on_stage(act)
