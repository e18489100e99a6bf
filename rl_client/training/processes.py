"""The processes that train one policy together: one, or as many as a launcher started."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

from rl_client.errors import ConfigError, LostProcessError, OtherProcessError
from rl_client.training.config import Device, launcher_fault
from rl_client.training.sharding import Sharding
from rl_client.training.shards import is_divided

T = TypeVar("T")

BUCKET_ELEMENTS = 1 << 24
"""Gradients are summed in pieces of this size, so that no second copy of all of them exists."""


class Processes:
    """A process's place among those that train together, and what they say to each other.

    Every method but the properties is called by all of them in the same order.

    Attributes:
        count: How many there are.
        rank: This one's number, from 0.
        device: Where its models are.
        sharding: How their weights are divided among all; None where each process holds all weights.
    """

    def __init__(
        self, device: torch.device, *, rank: int = 0, count: int = 1, sharding: Sharding | None = None
    ) -> None:
        self.device, self.rank, self.count, self.sharding = device, rank, count, sharding

    @staticmethod
    def meet(device: Device) -> "Processes":
        """Join the others, if a launcher started some.

        Raises:
            ConfigError: torch finds no such device, or `accelerate launch` was told what is not done.
        """
        if device is Device.AUTO:
            device = Device.CUDA if torch.cuda.is_available() else Device.CPU
        if device is Device.CUDA and not torch.cuda.is_available():
            raise ConfigError("settings", ["device: cuda was asked for, and torch finds none"])
        state = PartialState(cpu=device is Device.CPU)
        if fault := launcher_fault(state.num_processes):
            raise ConfigError("accelerate launch", [fault])
        if state.num_processes == 1:
            return Processes(torch.device(device.value))
        here, count = torch.device(state.device), state.num_processes
        return Processes(here, rank=state.process_index, count=count, sharding=Sharding.told(here, count))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1 and error is None:  # after an error the others may be gone; the process's end tells the rest
            PartialState().destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this one writes and talks."""
        return self.rank == 0

    def exchange(self, work: Callable[[], T]) -> list[T]:
        """Do something that may fail, and learn what came of it everywhere.

        So no process waits for one that has failed.

        Args:
            work: Done by each; waits for no other process. What it gives holds no tensors on a GPU.

        Returns:
            Everyone's results, in order of rank.

        Raises:
            OtherProcessError: If it failed in another process and not in this one; where it failed here, its own error.
        """
        if self.count == 1:
            return [work()]
        result: T | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - raised again below, once the others know
            failure = error
        told = None if failure is None else f"{type(failure).__name__}: {failure}"
        everyone = self._gather((told, result))
        if failure is not None:
            raise failure
        for rank, (fault, _) in enumerate(everyone):
            if fault is not None:
                raise OtherProcessError(f"process {rank} failed: {fault}")
        return [value for _, value in everyone]

    def together(self, work: Callable[[], T]) -> T:
        """Like `exchange` of work whose result stays in its process.

        Raises:
            OtherProcessError: See `exchange`.
        """
        results: list[T] = []
        self.exchange(lambda: results.append(work()))
        return results[0]

    def from_main(self, value: T) -> T:
        """The main process's value, in all of them."""
        mine: T = value if self.count == 1 else self._gather(value)[0]
        return mine

    def first(self, value: T | None) -> T | None:
        """The value of the first process that has one, in all of them."""
        values: list[T | None] = [value] if self.count == 1 else self._gather(value)
        return next((found for found in values if found is not None), None)

    def add(self, figures: Mapping[str, Tensor], names: Sequence[str], *, largest: Sequence[str] = ()) -> list[float]:
        """Everyone's figures put together.

        Args:
            figures: Scalars by name; one that is missing counts as 0.
            names: Of the figures, in the same order everywhere.
            largest: Those of them of which the largest is taken; the others are summed.
        """
        if self.count == 1:
            return [float(figures[name]) if name in figures else 0.0 for name in names]
        mine = torch.tensor([float(figures[name]) if name in figures else 0.0 for name in names], dtype=torch.float64)
        everyone = torch.stack(self._gather(mine))
        kept = torch.tensor([name in largest for name in names])
        return torch.where(kept, everyone.amax(dim=0), everyone.sum(dim=0)).tolist()

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up everyone's gradients, in place.

        A parameter that only some have a gradient for counts as 0 for the others; one that nobody has stays without.
        Of divided weights they are summed already, in the backward pass.
        """
        trained = [parameter for parameter in parameters if parameter.requires_grad and not is_divided(parameter)]
        if self.count == 1 or not trained:
            return
        used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        used = used.to(self.device)
        with _reaching_others():
            distributed.all_reduce(used, distributed.ReduceOp.MAX)
        shared = [parameter for parameter, is_used in zip(trained, used.tolist(), strict=True) if is_used]
        for bucket in _buckets(shared):
            flat = torch.cat([_gradient(parameter).flatten() for parameter in bucket])
            with _reaching_others():
                distributed.all_reduce(flat)
            pieces = torch.split(flat, [parameter.numel() for parameter in bucket])
            for parameter, gradient in zip(bucket, pieces, strict=True):
                _take_gradient(parameter, gradient)

    def share_rows(self, rows: int, rank: int | None = None) -> Tensor:
        """A process's rows of a mini-batch, by default this one's: neighbours, which share prompts; maybe none."""
        rank = self.rank if rank is None else rank
        first, end = (rows * number // self.count for number in (rank, rank + 1))
        return torch.arange(first, end, device=self.device)

    @contextmanager
    def computing_together(self) -> Iterator[None]:
        """Where weights are divided forwards wait for the others: one that is gone ends them with `LostProcessError`.

        Raises:
            LostProcessError: In place of what the connection says.
        """
        try:
            yield
        except RuntimeError as error:
            if self.sharding is None or not (isinstance(error, distributed.DistError) or "gloo" in str(error)):
                raise
            raise _lost(error) from error

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            self._gather(None)

    def _gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.count
        with _reaching_others():
            distributed.all_gather_object(values, value)
        return values


@contextmanager
def _reaching_others() -> Iterator[None]:
    """Where one of them is gone: an error that says so."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from error


def _lost(error: RuntimeError) -> LostProcessError:
    return LostProcessError(f"another process is gone, or cannot be reached; see its own message: {error}")


def _buckets(parameters: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to `BUCKET_ELEMENTS` together."""
    bucket: list[Tensor] = []
    elements = 0
    for parameter in parameters:
        if bucket and (elements + parameter.numel() > BUCKET_ELEMENTS or parameter.dtype != bucket[0].dtype):
            yield bucket
            bucket, elements = [], 0
        bucket.append(parameter)
        elements += parameter.numel()
    if bucket:
        yield bucket


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _take_gradient(parameter: Tensor, gradient: Tensor) -> None:
    if parameter.grad is None:
        parameter.grad = torch.empty_like(parameter)
    parameter.grad.copy_(gradient.view_as(parameter))
