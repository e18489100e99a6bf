"""The processes that train one model together: one, or as many as `accelerate launch` started."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

# Imported while there is a group, as by an optimizer's first step, it would keep the group for ever: its functions have
# it as a default. The group's threads would outlive it then, and can abort the process at its end.
import torch.distributed.nn
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from reward_service.config import is_lone_process_of_several
from reward_service.errors import ConfigError
from reward_service.training.interrupt import InterruptedTrainingError

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
            ConfigError: torch finds no such device, or a launcher was told to start several processes and started one.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("device", ["cuda: torch finds no such device"])
        self._state = PartialState(cpu=device == "cpu")
        self.count: int = self._state.num_processes
        if self.count == 1 and is_lone_process_of_several():
            raise ConfigError(
                "accelerate launch",
                ["started one process in place of several, as it does without GPUs; use torchrun --nproc_per_node N"],
            )
        self.rank: int = self._state.process_index
        self.device = torch.device(self._state.device if self.count > 1 else device)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # They stop together; after another error the others may be gone, and the launcher ends them.
        if self.count > 1 and (error is None or isinstance(error, InterruptedTrainingError)):
            self._state.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this one publishes, writes and talks."""
        return self.rank == 0

    def share(self, indices: Sequence[int]) -> Sequence[int]:
        """This process's part of a batch; as the batch is in order of length, the parts are of like lengths."""
        return indices[self.rank :: self.count]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up everyone's gradients, in place.

        A parameter that only some have a gradient for counts as 0 for the others; one that nobody has stays without.
        """
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
        used = used.to(self.device)
        torch.distributed.all_reduce(used, torch.distributed.ReduceOp.MAX)
        shared = [parameter for parameter, is_used in zip(trained, used.tolist(), strict=True) if is_used]
        flat = torch.cat([_gradient(parameter).flatten() for parameter in shared])
        torch.distributed.all_reduce(flat)
        sizes = [parameter.numel() for parameter in shared]
        for parameter, gradient in zip(shared, torch.split(flat, sizes), strict=True):
            parameter.grad = gradient.view_as(parameter)

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


def _gradient(parameter: Tensor) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
