import json

import pytest

from rl_client.errors import DataError, VersionChangedError
from rl_client.offline.bulk import score_file
from rl_client.offline.rows import Columns
from rl_client.offline.systems import load_system, read_references


def score(value, version="v1"):
    return {
        "model": "good",
        "version": version,
        "runtime": "r",
        "granularity": "sequence",
        "segments": [],
        "sequence_score": value,
    }


@pytest.fixture
def write(tmp_path):
    def make(*lines, name="a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
        return tmp_path / name

    return make


def test_samples_of_a_prompt_stand_together(write):
    path = write(
        {"id": "a", "sample": 0, "prompt": "p", "response": "r0", "length_tokens": 3, "scores": {"good": score(0.5)}},
        {"id": "b", "prompt": "q", "response": "s"},
        {"id": "a", "sample": 1, "prompt": "p", "response": "r1"},
    )
    system = load_system("mine", path)
    assert list(system.prompts) == ["a", "b"]
    assert [response.text for response in system.prompts["a"].responses] == ["r0", "r1"]
    assert system.prompts["a"].responses[0].scores["good"].sequence_score == 0.5
    assert [response.length_tokens for response in system.prompts["a"].responses] == [3, None]
    assert system.models == {"good": ("v1", "r")}


def test_a_folder_of_evaluate_and_a_scored_file_are_read_alike(write, settings, service):
    path = write({"id": "a", "prompt": "p", "response": "good", "kind": "k"}, name="run/responses.jsonl")
    made = settings(data=path, columns=Columns(keep=("kind",)))
    score_file(made, transport=service.transport)
    scored = load_system("s", made.output, slices=["kind"])
    plain = load_system("s", path.parent, slices=["kind"])
    assert scored.prompts["a"].slices == plain.prompts["a"].slices == {"kind": "k"}
    assert scored.prompts["a"].responses[0].scores["length"].sequence_score == 4.0
    assert plain.prompts["a"].responses[0].scores == {}
    assert scored.models == {"good": ("aaaaaaaaaaaa", "fake-fp32"), "length": ("bbbbbbbbbbbb", "fake-fp32")}


def test_references_are_in_the_file_or_beside_it(write):
    path = write({"id": "a", "response": "r", "reference": "x"}, {"id": "b", "response": "r", "references": ["y", "z"]})
    assert [one.references for one in load_system("s", path).prompts.values()] == [("x",), ("y", "z")]
    beside = read_references(write({"id": "a", "reference": "w"}, name="r.jsonl"))
    assert [one.references for one in load_system("s", path, references=beside).prompts.values()] == [("w",), ()]


@pytest.mark.parametrize(
    ("lines", "error", "told"),
    [
        ([], DataError, "holds no responses"),
        ([{"id": "a", "sample": 0, "response": "r"}] * 2, DataError, "line 2: sample 0 of 'a' occurs twice"),
        (
            [{"id": "a", "prompt": "p", "response": "r"}, {"id": "a", "prompt": "q", "response": "r"}],
            DataError,
            "line 2: 'a' has another prompt",
        ),
        (
            [{"response": "r", "scores": {"good": score(1)}}, {"response": "r", "scores": {"good": score(1, "v2")}}],
            VersionChangedError,
            "line 2: good is v2 on r, and v1 on r in a row before",
        ),
        ([{"response": "r", "scores": {"good": {"model": "good"}}}], DataError, r"line 1: scores\.version"),
    ],
)
def test_faults_are_named(write, lines, error, told):
    with pytest.raises(error, match=told):
        load_system("s", write(*lines))


def test_a_slice_that_is_not_there_and_bad_references(write):
    with pytest.raises(DataError, match="no 'kind' to slice by"):
        load_system("s", write({"response": "r"}), slices=["kind"])
    with pytest.raises(DataError, match="line 1: must have an 'id' and a 'reference'"):
        read_references(write({"id": "a"}))
    with pytest.raises(DataError, match="line 2: the id 'a' occurs twice"):
        read_references(write(*[{"id": "a", "reference": "x"}] * 2))
