"""Settings of one model -> the backends of all its replicas, divided, all of one runtime."""

from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.core.division import Division
from reward_service.registry.store import Published
from reward_service.runtimes.choose import choose_division
from reward_service.runtimes.load import load_backend


def load_divisions(published: Published, wanted: ModelSettings, batching: Batching) -> list[Division]:
    """Load a model once for each replica on each device.

    Whatever `auto` chooses on the first device runs on all of them: a version and a runtime name a score.

    Raises:
        StoreError: See `runtimes.load.load_backend` and `runtimes.choose.choose_division`.
        ModelFailedError: It does not run.
        RuntimeError: Its lanes cannot be opened.
    """
    places = [device for device in wanted.all_devices for _ in range(wanted.replicas)]
    divisions: list[Division] = []
    try:
        for device in places:
            here = wanted.model_copy(update={"device": device, "devices": ()})
            if divisions and wanted.runtime is Runtime.AUTO:
                runtime, _, precision = divisions[0].runtime.partition("-")
                here = here.model_copy(update={"runtime": Runtime(runtime), "precision": Precision(precision)})
            if here.runtime is Runtime.AUTO:
                divisions.append(choose_division(published, here, batching))
            else:
                divisions.append(Division(load_backend(published, here, batching)))
    except BaseException:
        for division in divisions:
            division.close()
        raise
    return divisions
