"""The paper's tables and plots from finished runs, beside the paper's figures: one HTML file and one JSON file.

    python -m experiments.tables runs/experiments/small runs/experiments/full --out runs/experiments/report.html

A figure that no run has made is left empty and its run is named; nothing is estimated.
"""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib
import typer
from matplotlib.figure import Figure

from experiments.paper import TABLES, Row, Table

CURVES = {
    "qa": ("reward/relevance", "reward/factuality", "reward/completeness", "length_tokens", "kl", "entropy"),
    "detox": ("reward/toxicity", "reward/toxicity_whole", "length_tokens", "kl", "entropy", "duplicate_share"),
}
EMPTY = "–"
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:1rem 0}td,th{padding:.3rem .7rem;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}.p{color:#777}.i{color:#777;font-size:.8em}.m{color:#a00}img{max-width:100%}
"""


def read_figures(root: Path, family: str, arm: str) -> dict[str, dict[str, float | None]] | None:
    """Every figure of an arm: `mean`, and `low` and `high` where there is an interval; None if there are none yet."""
    folder = root / family / "figures" / arm
    path = folder / "figures.json"
    if not path.exists():
        return None
    figures: dict[str, dict[str, float | None]] = {
        name: {key: figure[key] for key in ("mean", "low", "high")}
        for name, figure in json.loads(path.read_text(encoding="utf-8"))["figures"].items()
    }
    truth = folder / "truth.json"
    if truth.exists():
        for name, value in json.loads(truth.read_text(encoding="utf-8")).items():
            figures[f"truth/{name}"] = {"mean": float(value), "low": None, "high": None}
    return figures


def make_tables(roots: Sequence[Path]) -> dict[str, Any]:
    """Everything that the report shows.

    Args:
        roots: Folders of runs, each with `qa/` or `detox/` or both.

    Returns:
        `runs` (names of the roots), `missing` (arms without figures, by root), and `tables`: each with its headings,
        its columns' decimals and its rows, where `paper` holds the paper's figure, `ours` by root `mean`, `low` and
        `high` in the paper's unit, None without.
    """
    missing: dict[str, list[str]] = {str(root): [] for root in roots}
    tables = []
    for table in TABLES:
        rows = [_make_row(table, row, roots, missing) for row in table.rows]
        headings = {column.figure: column.heading for column in table.columns}
        decimals = {column.figure: column.decimals for column in table.columns}
        content = {"title": table.title, "note": table.note, "columns": headings, "decimals": decimals, "rows": rows}
        tables.append(content)
    unique = {root: list(dict.fromkeys(names)) for root, names in missing.items()}
    return {"runs": list(unique), "missing": unique, "tables": tables}


def _make_row(table: Table, row: Row, roots: Sequence[Path], missing: dict[str, list[str]]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    for root in roots if row.arm is not None else ():
        figures = read_figures(root, table.family, str(row.arm))
        if figures is None:
            missing[str(root)].append(f"{table.family}/{row.arm}")
        ours[str(root)] = {
            column.figure: _scaled((figures or {}).get(column.figure), column.scale) for column in table.columns
        }
    return {"title": row.title, "arm": row.arm, "paper": dict(row.paper), "ours": ours}


def _scaled(figure: Mapping[str, float | None] | None, scale: float) -> dict[str, float | None] | None:
    if figure is None or figure["mean"] is None:
        return None
    return {key: None if value is None else value * scale for key, value in figure.items()}


def render(content: Mapping[str, Any], plots: Sequence[tuple[str, str]]) -> str:
    """The page, which needs nothing from outside itself."""
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>The paper's experiments</title>",
        f"<style>{STYLE}</style><h1>The paper's experiments</h1>",
        "<p>Beside each figure of ours, with its 95% interval over prompts, stands the paper's "
        "(<a href='https://arxiv.org/abs/2306.01693'>arXiv 2306.01693</a>).</p>",
    ]
    for root, names in content["missing"].items():
        if names:
            parts.append(f"<p class='m'>{html.escape(root)} has no figures of: {html.escape(', '.join(names))}</p>")
    for table in content["tables"]:
        parts += [f"<h2>{html.escape(table['title'])}</h2>", _table(table, content["runs"])]
        parts.append(f"<p>{html.escape(table['note'])}</p>")
    parts += [f"<h2>{html.escape(title)}</h2><img alt='learning curves' src='{address}'>" for title, address in plots]
    return "\n".join(parts)


def _table(table: Mapping[str, Any], roots: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in table["columns"].values())
    shown = table["decimals"].items()
    rows = []
    for row in table["rows"]:
        for root in roots if row["ours"] else ():
            cells = "".join(_cell(row["ours"][root][figure], digits) for figure, digits in shown)
            name = Path(root).name or root
            rows.append(f"<tr><td>{html.escape(row['title'])}, ours ({html.escape(name)})</td>{cells}</tr>")
        if row["paper"]:
            cells = "".join(f"<td>{_number(row['paper'].get(figure), digits)}</td>" for figure, digits in shown)
            rows.append(f"<tr class='p'><td>{html.escape(row['title'])}, paper</td>{cells}</tr>")
    return f"<table><tr><th></th>{head}</tr>{''.join(rows)}</table>"


def _cell(figure: Mapping[str, float | None] | None, decimals: int) -> str:
    if figure is None:
        return f"<td>{EMPTY}</td>"
    mean, low, high = (_number(figure[key], decimals) for key in ("mean", "low", "high"))
    interval = "" if figure["low"] is None else f"<br><span class='i'>[{low}, {high}]</span>"
    return f"<td>{mean}{interval}</td>"


def _number(value: float | None, decimals: int) -> str:
    return EMPTY if value is None else f"{value:.{decimals}f}"


def draw_curves(root: Path, family: str) -> str | None:
    """Learning curves of every trained arm of a family, as an address that holds its own image; None without any."""
    arms = dict.fromkeys(row.arm for table in TABLES if table.family == family for row in table.rows if row.arm)
    runs = {arm: rows for arm in arms if (rows := _read_metrics(root / family / arm / "metrics.jsonl"))}
    if not runs:
        return None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "experiments", "font.size": 9}):
        figure = Figure(figsize=(13, 6), layout="constrained")
        for axes, name in zip(figure.subplots(2, 3).flat, CURVES[family], strict=True):
            for place, (arm, rows) in enumerate(runs.items()):
                points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), label=arm, color=f"C{place}", linewidth=1)
            axes.set(title=name, xlabel="PPO step")
            if not axes.lines:
                axes.set_title(f"{name}: in none of the runs")
                axes.set_axis_off()
        figure.legend(*_labels(figure), loc="outside lower center", ncols=len(runs), frameon=False)
        stream = io.BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _labels(figure: Any) -> tuple[list[Any], list[str]]:
    """Each arm once, though not every plot has every arm."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _read_metrics(path: Path) -> list[dict[str, Any]]:
    """A PPO run's figures; SFT's are of another kind and are left out."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "kl" in row]


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, such as runs/experiments/small.")],
    out: Annotated[Path, typer.Option(help="The page; the same as JSON goes beside it.")] = Path("report.html"),
) -> None:
    """Write the page and the JSON, and name what is missing."""
    unknown = [root for root in runs if not any((root / family).is_dir() for family in CURVES)]
    if unknown:
        raise typer.BadParameter(f"no qa/ or detox/ in {', '.join(map(str, unknown))}")
    content = make_tables(runs)
    plots = [
        (f"Learning curves: {root.name} {family}", address)
        for root in runs
        for family in CURVES
        if (address := draw_curves(root, family)) is not None
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(render(content, plots), encoding="utf-8")
    out.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for root, names in content["missing"].items():
        if names:
            typer.echo(f"{root} has no figures of: {', '.join(names)}", err=True)
    typer.echo(f"{out}, {out.with_suffix('.json')}")


if __name__ == "__main__":
    typer.run(main)
