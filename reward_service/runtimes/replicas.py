"""Settings of one model -> the backends of all its replicas, all of one runtime."""

from reward_service.config import Batching, ModelSettings, Precision, Runtime
from reward_service.core.backend import Backend
from reward_service.registry.store import Published
from reward_service.runtimes.choose import choose_backend
from reward_service.runtimes.load import load_backend


def load_backends(published: Published, wanted: ModelSettings, batching: Batching) -> list[Backend]:
    """Load a model once for each replica on each device.

    Whatever `auto` chooses on the first device runs on all of them: a version and a runtime name a score.

    Raises:
        StoreError: See `runtimes.load.load_backend` and `runtimes.choose.choose_backend`.
        ModelFailedError: It does not run.
    """
    places = [device for device in wanted.all_devices for _ in range(wanted.replicas)]
    backends: list[Backend] = []
    try:
        for device in places:
            here = wanted.model_copy(update={"device": device, "devices": ()})
            if backends and wanted.runtime is Runtime.AUTO:
                runtime, _, precision = backends[0].runtime.partition("-")
                here = here.model_copy(update={"runtime": Runtime(runtime), "precision": Precision(precision)})
            load = choose_backend if here.runtime is Runtime.AUTO else load_backend
            backends.append(load(published, here, batching))
    except BaseException:
        for backend in backends:
            backend.close()
        raise
    return backends
