import numpy as np
import pytest

from reward_proto import Granularity, ModelScore
from rl_client.errors import DataError, VersionChangedError
from rl_client.offline import comparison
from rl_client.offline.comparison import check_comparable, compare_systems, pareto_front
from rl_client.offline.figures import make_figures
from rl_client.offline.systems import PromptResponses, Response, System


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch):
    monkeypatch.setattr(comparison, "SLICE_RESAMPLES", 50)


def make(name, values, *, version="v1", texts=None, prompt="p", keys=None, model="good"):
    prompts = {}
    for n, value in enumerate(values):
        score = ModelScore(
            model=model,
            version=version,
            runtime="r",
            granularity=Granularity.SEQUENCE,
            segments=[],
            sequence_score=value,
        )
        text = texts[n] if texts else f"{name} {n}"
        key = keys[n] if keys else f"q{n}"
        prompts[key] = PromptResponses(
            key, prompt, {}, (Response(text, {model: score}, None),), (), {"kind": "even" if n % 2 == 0 else "odd"}
        )
    return System(name, prompts, {model: (version, "r")})


def compare(*systems, slices=()):
    return compare_systems(systems, [make_figures(system) for system in systems], slices=slices, seed=0)


def normal(n, seed, shift=0.0):
    return (np.random.default_rng(seed).normal(size=n) + shift).tolist()


def test_a_run_compared_with_itself_finds_nothing():
    values = normal(200, 0)
    texts = [" ".join(["w"] * (1 + n % 7)) for n in range(200)]
    (pair,) = compare(make("a", values, texts=texts), make("b", values, texts=texts), slices=["kind"])
    for figure in pair["figures"].values():
        for test in [figure, *(part for parts in figure["by"].values() for part in parts)]:
            assert (test["difference"], test["low"], test["high"]) == (0.0, 0.0, 0.0)
            assert (test["win"], test["lose"], test["tie"]) == (0, 0, test["n"])
            assert (test["p_bootstrap"], test["p_sign"], test["found"]) == (1.0, 1.0, False)


def test_the_same_text_is_a_tie_whatever_its_batch_did():
    noise = [value + 1e-4 for value in normal(50, 0)]
    texts = ["the same"] * 50
    (pair,) = compare(make("a", normal(50, 0), texts=texts), make("b", noise, texts=texts))
    assert pair["figures"]["reward/good"]["tie"] == 50
    assert pair["figures"]["reward/good"]["difference"] == 0.0


def test_a_planted_difference_is_found():
    a, b = make("a", normal(2000, 0)), make("b", normal(2000, 1, shift=0.1))
    (pair,) = compare(b, a)
    test = pair["figures"]["reward/good"]
    assert (pair["a"], pair["b"]) == ("b", "a")
    assert test["found"]
    assert 0 < test["low"] < test["difference"] < test["high"]
    assert test["win"] + test["lose"] == 2000
    assert test["win"] > test["lose"]


def test_wins_are_counted_for_each_slice():
    a = make("a", [1.0, 0.0, 1.0, 0.0, 1.0, 1.0], texts=["x"] * 6)
    b = make("b", [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], texts=["y y"] * 6)
    (pair,) = compare(a, b, slices=["kind"])
    figure = pair["figures"]["reward/good"]
    assert (figure["win"], figure["tie"], figure["lose"]) == (3, 1, 2)
    assert [(part["slice"], part["win"], part["tie"], part["lose"]) for part in figure["by"]["kind"]] == [
        ("even", 3, 0, 0),
        ("odd", 0, 1, 2),
    ]
    assert [(part["slice"], part["n"]) for part in figure["by"]["longer"]] == [("b longer", 6)]
    assert [(part["slice"], part["n"]) for part in figure["by"]["length"]] == [("1.5 to 1.5 words", 6)]


def test_length_bins_hold_about_the_same_number():
    texts = [" ".join(["w"] * n) for n in range(1, 41)]
    (pair,) = compare(make("a", normal(40, 0), texts=texts), make("b", normal(40, 1), texts=texts[::1]))
    parts = pair["figures"]["length_words"]["by"]["length"]
    assert [part["n"] for part in parts] == [10, 10, 10, 10]
    assert parts[0]["slice"] == "1 to 10 words"


def test_p_values_are_corrected_over_pairs_of_systems():
    systems = [
        make(name, normal(60, seed, shift)) for seed, (name, shift) in enumerate([("a", 0), ("b", 0.5), ("c", 0)])
    ]
    pairs = compare(*systems)
    assert [(pair["a"], pair["b"]) for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    tests = sorted((pair["figures"]["reward/good"] for pair in pairs), key=lambda test: test["p_bootstrap"])
    assert tests[0]["p_bootstrap_holm"] == pytest.approx(3 * tests[0]["p_bootstrap"])
    assert all(test["p_bootstrap_holm"] >= test["p_bootstrap"] for test in tests)
    assert all(test["found"] == (test["p_bootstrap_holm"] <= 0.05) for test in tests)


def test_prompts_that_some_file_lacks_are_an_error_or_said():
    a, b = make("a", [1.0, 2.0, 3.0]), make("b", [1.0, 2.0], keys=["q2", "q0"])
    with pytest.raises(DataError, match="--common compares the 2 others"):
        check_comparable([a, b], common=False)
    systems, left_out = check_comparable([a, b], common=True)
    assert [list(system.prompts) for system in systems] == [["q0", "q2"], ["q0", "q2"]]
    assert left_out == {"a": 1, "b": 0}


@pytest.mark.parametrize(
    ("other", "error", "told"),
    [
        (make("a", [1.0]), DataError, "different names"),
        (make("b", [1.0], version="v2"), VersionChangedError, "good scored with different versions"),
        (make("b", [1.0], prompt="other"), DataError, "'q0' is another prompt"),
        (make("b", [1.0], keys=["x"]), DataError, "share no prompt"),
    ],
)
def test_what_cannot_be_compared(other, error, told):
    with pytest.raises(error, match=told):
        check_comparable([make("a", [1.0]), other], common=True)


def test_the_pareto_front():
    means = {
        "a": {"x": 1.0, "y": 0.0},
        "b": {"x": 0.0, "y": 1.0},
        "c": {"x": 0.5, "y": -1.0},
        "d": {"x": 0.5, "y": 0.5},
        "e": {"x": 0.5, "y": 0.5},
    }
    assert pareto_front(means) == ["a", "b", "d", "e"]
