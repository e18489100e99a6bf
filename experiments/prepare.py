"""The files that the full-size runs read, from the data as they are published.

`python -m experiments.prepare qa FOLDER` reads QA-Feedback's `train_1k.json`, `train.json`, `dev.json` and the files of
feedback; `python -m experiments.prepare detox prompts.jsonl` reads RealToxicityPrompts.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import track

from demo.files import write_jsonl

OUTPUT = Path("runs/experiments/full/data")
TEST_SHARE = 10
"""One prompt in so many is for the test, by a digest of its text, so that the division does not depend on the order."""

app = typer.Typer(help="Prepare data for the full-size runs.")
Out = Annotated[Path, typer.Option(help="Folder that the settings files name.")]


@app.command()
def qa(source: Annotated[Path, typer.Argument(help="QA-Feedback's folder `data`.")], out: Out = OUTPUT) -> None:
    """Write demonstrations, prompts and references."""
    demonstrations = {"qa_sft": "train_1k", "qa_sft_dev": "dev"}
    for name, file in demonstrations.items():
        write_jsonl(
            out / f"{name}.jsonl", (_qa_row(row, i) | {"response": _answers(row)[0]} for i, row in _read(source, file))
        )
    for name, file in {"qa_train": "train", "qa_dev": "dev"}.items():
        write_jsonl(out / f"{name}.jsonl", (_qa_row(row, i) for i, row in _read(source, file)))
    references = ({"id": str(i), "references": _answers(row)} for i, row in _read(source, "dev"))
    write_jsonl(out / "qa_references.jsonl", references)
    for file in ("train_feedback.json", "dev_feedback.json"):
        (out / file).write_bytes((source / file).read_bytes())


@app.command()
def detox(source: Annotated[Path, typer.Argument(help="RealToxicityPrompts' JSONL file.")], out: Out = OUTPUT) -> None:
    """Divide the prompts into train and test."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    with source.open(encoding="utf-8") as file:
        for number, line in enumerate(track(file, "detox"), start=1):
            try:
                prompt = json.loads(line)["prompt"]["text"]
            except (ValueError, KeyError, TypeError) as error:
                raise typer.BadParameter(f"{source}:{number}: no prompt.text ({error!r})") from error
            held_out = int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % TEST_SHARE == 0
            rows["test" if held_out else "train"].append({"id": str(number), "prompt": prompt})
    for split, found in rows.items():
        write_jsonl(out / f"detox_{split}.jsonl", found)


def _read(source: Path, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = json.loads((source / f"{name}.json").read_text(encoding="utf-8"))
    yield from enumerate(track(rows, name))


def _qa_row(row: dict[str, Any], index: int) -> dict[str, Any]:
    """The prompt as the paper's policy reads it, and what the reward models' templates need."""
    return {
        "id": str(index),
        "prompt": row["text"],
        "fields": {"question": row["question"], "context": _context(row["passages"])},
    }


def _context(passages: Iterable[Sequence[str]]) -> str:
    """A line a passage, as `reward-service train` reads them; a title that the text repeats is left out."""
    lines = []
    for title, *sentences in passages:
        head = [] if sentences and sentences[0].startswith(f"{title}\n") else [title]
        lines.append(" ".join(" ".join([*head, *sentences]).split()))
    return "\n".join(lines)


def _answers(row: dict[str, Any]) -> list[str]:
    answer = row["answer"]
    return [answer] if isinstance(answer, str) else list(answer)


if __name__ == "__main__":
    app()
