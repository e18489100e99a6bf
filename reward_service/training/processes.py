"""The processes that train one model together: one, or as many as `accelerate launch` started."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from reward_service.errors import ConfigError

T = TypeVar("T")


class Processes:
    """A process's place among those that train together, and what they say to each other.

    Attributes:
        count: How many there are.
        rank: This one's number, from 0.
        device: Where its model runs.
    """

    def __init__(self, device: str) -> None:
        """Join the others.

        Args:
            device: `auto` (CUDA where there is one), `cpu` or `cuda`.

        Raises:
            ConfigError: torch finds no such device.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device", ["cuda: torch finds no such device"])
        self._state = PartialState(cpu=device == "cpu")
        self.count: int = self._state.num_processes
        self.rank: int = self._state.process_index
        self.device = torch.device(self._state.device if self.count > 1 else device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count > 1 and error is None:  # After an error the others may be gone, and the launcher ends them.
            self._state.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this one publishes, writes and talks."""
        return self.rank == 0

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch; as the batch is in order of length, the parts are of like lengths."""
        return indices[self.rank :: self.count]

    def wrap(self, model: Any) -> Any:
        """The model with its gradients averaged over the processes."""
        if self.count == 1:
            return model
        # Some encoders hold weights that this input does not use, such as Longformer's for global attention.
        device_ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)

    def without_sync(self, wrapped: Any) -> AbstractContextManager[None]:
        """Within it gradients add up in each process alone."""
        context: AbstractContextManager[None] = nullcontext() if self.count == 1 else wrapped.no_sync()
        return context

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in one of them."""
        return self.sum(float(flag)) > 0 if self.count > 1 else flag

    def sum(self, value: float) -> float:
        """The sum of their values."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return float(total.item())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Everyone's tensor, all of one shape, in order of rank."""
        if self.count == 1:
            return [tensor]
        mine = tensor.to(self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, mine)
        return [each.to(tensor.device) for each in everyone]

    def from_main(self, value: T | None) -> T:
        """The main process's value, in all of them; what the others give is not looked at."""
        values: list[Any] = [value]
        if self.count > 1:
            broadcast_object_list(values, from_process=0)
        result: T = values[0]
        return result

    def wait(self) -> None:
        """Until all are here."""
        self._state.wait_for_everyone()
