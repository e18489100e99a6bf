"""What a load looks like: how many clients of which jobs send how much, until when."""

from collections.abc import Mapping
from dataclasses import dataclass

from reward_service.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Plan:
    """A closed load: each client sends its next request when the last one is answered.

    Attributes:
        clients: How many of each job, by its name; an empty name sends no `X-Client-Job`.
        items: Of one request.
        models: References to ask for; None asks for all that are served.
        duration_s: When it ends; None for no limit.
        requests: After how many requests it ends; None for no limit.
        timeout_s: The deadline that each request names.
        is_unique: Whether each response gets a number, so that no cache has seen it.
    """

    clients: Mapping[str, int]
    items: int
    models: tuple[str, ...] | None = None
    duration_s: float | None = None
    requests: int | None = None
    timeout_s: float = 60.0
    is_unique: bool = False


def parse_jobs(text: str) -> dict[str, float]:
    """Read `a=2,b=1`; a name alone has the weight 1.

    Returns:
        Weights by name, in the text's order; all are positive.

    Raises:
        ConfigError: An empty name, one given twice, or a weight that is not a positive number.
    """
    weights: dict[str, float] = {}
    faults = []
    for part in text.split(","):
        name, given, value = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(value) if given else 1.0
        except ValueError:
            weight = 0.0
        if not name or not name.isascii() or not name.isprintable():
            faults.append(f"{part!r} has no name that a header can carry")
        elif not 0 < weight < float("inf"):
            faults.append(f"{part!r}: a weight is a positive number")
        elif name in weights:
            faults.append(f"{name} is given twice")
        weights[name] = weight
    if faults:
        raise ConfigError("--jobs", faults)
    return weights


def share_out(weights: Mapping[str, float], clients: int) -> dict[str, int]:
    """Divide clients among jobs by weight; each gets one at least.

    Args:
        weights: By job, positive.
        clients: Of all jobs together.

    Raises:
        ConfigError: There are fewer clients than jobs.

    Source: the largest-remainder method.
    """
    if clients < len(weights):
        raise ConfigError("--concurrency", [f"{clients} clients are too few for {len(weights)} jobs"])
    spare = clients - len(weights)
    exact = {job: weight / sum(weights.values()) * clients - 1 for job, weight in weights.items()}
    wanted = {job: max(part, 0.0) for job, part in exact.items()}
    scale = spare / total if (total := sum(wanted.values())) else 0.0
    shares = {job: int(part * scale) for job, part in wanted.items()}
    by_remainder = sorted(wanted, key=lambda job: shares[job] - wanted[job] * scale)
    for job in by_remainder[: spare - sum(shares.values())]:
        shares[job] += 1
    return {job: share + 1 for job, share in shares.items()}
