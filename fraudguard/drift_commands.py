"""`fraudguard drift`: reads options, calls, prints for people. Holds no logic of its own."""

import asyncio
import json
import logging
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from fraudguard.config import Settings
from fraudguard.errors import BadInput

if TYPE_CHECKING:  # at run time inside the command: see __main__
    from fraudguard.drift import Drift

_Day = datetime | None
_DAYS = ["%Y-%m-%d"]


def drift(
    since: Annotated[_Day, typer.Option(formats=_DAYS, help="By default 12 weeks ago, or the first decision.")] = None,
    until: Annotated[_Day, typer.Option(formats=_DAYS, help="Before this day; the newest decision by default.")] = None,
    reference_from: Annotated[_Day, typer.Option(formats=_DAYS, help="By default the first four weeks shown.")] = None,
    reference_to: Annotated[_Day, typer.Option(formats=_DAYS, help="Before this day.")] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="Compare with what this release was trained on, not with stored weeks.")
    ] = None,
    form: Annotated[Literal["text", "markdown", "json"], typer.Option("--format", help="text: the summary.")] = "text",
    folder: Annotated[Path | None, typer.Option("--out", help="Writes drift.md, .json and .png into it.")] = None,
    textfile: Annotated[Path | None, typer.Option(help="Writes Prometheus gauges: NAME.prom.")] = None,
) -> None:
    """By week: how inputs and scores moved, alerts and their precision, labels, versions. Days mean whole weeks."""
    from fraudguard.drift import Asked, run
    from fraudguard.drift_export import as_json, write_textfile
    from fraudguard.drift_report import render, summary, title

    first, before, from_, to = (day and day.date() for day in (since, until, reference_from, reference_to))
    asked = Asked(first, before, from_, to, baseline)
    with Progress(
        *Progress.get_default_columns()[:1], MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("decisions", total=None)
        count = asyncio.run(run(Settings(), asked, lambda more: bar.advance(task, more)))
    if textfile:
        write_textfile(count, textfile)
    written = write(count, folder) if folder else []
    if form == "json":
        print(json.dumps(as_json(count), ensure_ascii=False))
        return
    print(render(count) if form == "markdown" else f"{title(count)}\n\n{summary(count)}\n")
    for line in written:
        print(line)


def write(count: "Drift", folder: Path) -> list[str]:
    """The page, the picture where it can be drawn, and the data; what to say of them."""
    from fraudguard.drift_export import as_json
    from fraudguard.drift_picture import can_draw, draw
    from fraudguard.drift_report import render

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    page, picture, data = folder / "drift.md", folder / "drift.png", folder / "drift.json"
    drawn = bool(count.populations) and can_draw()
    missing = "" if drawn or not count.populations else "No picture: matplotlib is not installed (the extra [bench])."
    files = [page, data, *([picture] if drawn else [])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if drawn:
            draw(count, picture)
        text = render(count, picture.name if drawn else None)
        page.write_text(f"{text}\n{missing}\n" if missing else text, encoding="utf-8")
        data.write_text(json.dumps(as_json(count), ensure_ascii=False) + "\n", encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: NUL in a path
        raise BadInput(f"cannot be written: {error}", path=repr(str(folder)), hint="name a folder") from error
    return [f"written: {', '.join(map(str, files))}", *filter(None, [missing])]
