from io import StringIO
from pathlib import Path

from rich.console import Console

from reward_service.registry.store import Store
from reward_service.training.summary import metrics_table
from reward_service.training.train import TrainedModel


def test_the_table_shows_each_models_figures(trained: tuple[Path, Path]) -> None:
    store = Store(trained[1])
    span, pair = store.resolve("factuality"), store.resolve("preference")
    stream = StringIO()
    console = Console(file=stream, width=132)
    console.print(metrics_table([TrainedModel(span, 1.25, skipped=False), TrainedModel(pair, 0.0, skipped=True)]))
    lines = stream.getvalue().splitlines()
    rows = {line.split()[1]: [cell.strip() for cell in line.strip("│ ").split("│")] for line in lines if "│" in line}
    assert rows["factuality"][1] == span.version
    assert rows["factuality"][2:4] == ["24", "-"]
    assert rows["factuality"][-1] == "1.2"
    assert rows["preference"][3] == "72"
    assert rows["preference"][-1] == "kept"
