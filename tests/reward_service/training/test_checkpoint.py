from pathlib import Path

import pytest
import torch

from reward_service.errors import StoreError
from reward_service.training.checkpoint import (
    Checkpoint,
    copy_weights,
    load_checkpoint,
    pack_optimizer,
    put_weights,
    remove_checkpoints,
    save_checkpoint,
    unpack_optimizer,
)


def simple(value: float) -> Checkpoint:
    return Checkpoint({"model": {"w": torch.tensor([value])}}, {"step": value})


def test_the_newest_is_read_and_the_others_go(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert load_checkpoint(folder) is None
    for step in (9, 10, 11):
        save_checkpoint(folder, step, simple(step))
    found = load_checkpoint(folder)
    assert found is not None
    assert found.state == {"step": 11}
    assert found.tensors["model"]["w"].tolist() == [11.0]
    assert [path.name for path in folder.iterdir()] == ["step-00000011"]
    assert all(path.suffix in {".json", ".safetensors"} for path in (folder / "step-00000011").iterdir())
    remove_checkpoints(folder)
    assert load_checkpoint(folder) is None
    remove_checkpoints(folder)


def test_one_that_was_cut_off_does_not_count(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, simple(1))
    (tmp_path / ".unfinished-step-00000002").mkdir()
    (tmp_path / ".unfinished-step-00000002" / "model.safetensors").write_bytes(b"half")
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state == {"step": 1}
    save_checkpoint(tmp_path, 2, simple(2))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_a_damaged_one_is_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, simple(1))
    path = tmp_path / "step-00000001"
    (path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(StoreError, match=r"step-00000001.*remove the folder"):
        load_checkpoint(tmp_path)
    save_checkpoint(tmp_path, 2, simple(2))
    (tmp_path / "step-00000002" / "state.json").write_text('{"format": 99}')
    with pytest.raises(StoreError, match=r"state\.json: is not of format"):
        load_checkpoint(tmp_path)


def test_a_number_that_is_none_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_checkpoint(tmp_path, 1, Checkpoint({}, {"loss": float("nan")}))
    assert load_checkpoint(tmp_path) is None


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 2, bias=False)
        self.second = torch.nn.Linear(2, 2, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("mean", torch.zeros(2))


def test_weights_are_copied_with_buffers_and_tied_ones_once(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    model.mean += 1.0
    weights = copy_weights(model)
    assert weights.keys() == {"first.weight", "mean"}
    before = model.first.weight.detach().clone()
    with torch.no_grad():
        model.first.weight += 1.0
    assert torch.equal(weights["first.weight"], before)
    save_checkpoint(tmp_path, 1, Checkpoint({"model": weights}, {}))
    put_weights(other, weights)
    assert torch.equal(other.second.weight, before)
    assert other.mean.tolist() == [1.0, 1.0]


def test_weights_that_do_not_fit_are_told() -> None:
    with pytest.raises(StoreError, match="do not fit the model: mean"):
        put_weights(Tied(), {"first.weight": torch.zeros(2, 2)})
    with pytest.raises(StoreError, match=r"do not fit the model: first\.weight"):
        put_weights(Tied(), {"first.weight": torch.zeros(2, 3), "mean": torch.zeros(2)})


def test_an_optimizer_goes_on_to_the_bit() -> None:
    def steps(model: Tied, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            torch.autograd.backward((model.first.weight**2).sum())
            optimizer.step()
            optimizer.zero_grad()

    straight, model, other = Tied(), Tied(), Tied()
    put_weights(straight, copy_weights(model))
    first = torch.optim.AdamW(straight.parameters(), lr=0.1)
    steps(straight, first, 5)
    second = torch.optim.AdamW(model.parameters(), lr=0.1)
    steps(model, second, 2)
    put_weights(other, copy_weights(model))
    third = torch.optim.AdamW(other.parameters(), lr=0.1)
    unpack_optimizer(third, pack_optimizer(second))
    steps(other, third, 3)
    assert torch.equal(other.first.weight, straight.first.weight)
