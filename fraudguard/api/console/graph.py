"""A small picture of what links a case: its account, the entities of its payments, the other accounts they lead to.

Pure: places boxes and lines on a plane; the template draws them as SVG and says the same in words beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from fraudguard.api.console.links import Link
from fraudguard.decisions.casebook import Case, Disposition

WIDTH: Final = 352.0
ROW: Final = 40.0
HEIGHT: Final = 32.0
OTHERS_MAX: Final = 6
_COLUMNS: Final = ((0.0, 92.0), (122.0, 108.0), (260.0, 92.0))  # left edge and width


@dataclass(frozen=True, slots=True)
class Box:
    """kind: `account`, `other`, or an entity's. state: of the account's newest case. bad: known for fraud, or listed.

    x, y: the middle of its left edge, from the top left.
    """

    kind: str
    name: str
    href: str
    state: str
    bad: bool
    x: float
    y: float
    width: float


@dataclass(frozen=True, slots=True)
class Graph:
    """lines: from a box's right edge to another's left one, as x1, y1, x2, y2. hidden: accounts left out."""

    boxes: tuple[Box, ...]
    lines: tuple[tuple[float, float, float, float], ...]
    height: float
    hidden: int


def graph(account_id: str, links: Sequence[Link], cases: Mapping[str, Case]) -> Graph | None:
    """cases: the newest of other accounts, by account; one without a case is left out. None where nothing is linked."""
    if not links:
        return None
    ranked = _ranked(links, cases)
    shown = ranked[:OTHERS_MAX]
    height = max(len(links), len(shown), 1) * ROW
    centre = Box("account", account_id, _search({"account": account_id}), "", False, *_place(0, 0, 1, height))
    entities = [
        Box(
            link.kind,
            link.entity_id,
            _search({"where": f"{link.field} == {_quoted(link.entity_id)}"}),
            "",
            bool(link.frauds or link.lists),
            *_place(1, at, len(links), height),
        )
        for at, link in enumerate(links)
    ]
    others = [
        Box(
            "other",
            account,
            f"/console/cases/{cases[account].case_id}",
            _state(cases[account]),
            cases[account].disposition is Disposition.CONFIRMED_FRAUD,
            *_place(2, at, len(shown), height),
        )
        for at, account in enumerate(shown)
    ]
    by_name = {box.name: box for box in others}
    pairs = [(centre, entity) for entity in entities]
    for link, entity in zip(links, entities, strict=True):
        pairs += [(entity, by_name[account]) for account in link.others if account in by_name]
    lines = tuple((a.x + a.width, a.y, b.x, b.y) for a, b in pairs)
    return Graph((centre, *entities, *others), lines, height, len(ranked) - len(shown))


def _ranked(links: Sequence[Link], cases: Mapping[str, Case]) -> list[str]:
    """Accounts that share the most first, near what they share, so that few lines cross."""
    shared: dict[str, list[int]] = {}
    for at, link in enumerate(links):
        for account in link.others:
            if account in cases:
                shared.setdefault(account, []).append(at)
    most = sorted(shared, key=lambda account: -len(shared[account]))[:OTHERS_MAX]
    near = sorted(most, key=lambda account: sum(shared[account]) / len(shared[account]))
    return near + [account for account in shared if account not in most]


def _place(column: int, at: int, of: int, height: float) -> tuple[float, float, float]:
    x, width = _COLUMNS[column]
    return x, height * (at + 0.5) / of, width


def _state(case: Case) -> str:
    return case.disposition.value if case.disposition else case.state


def _search(query: Mapping[str, str]) -> str:
    return f"/console/decisions?{urlencode(query)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def curve(line: tuple[float, float, float, float]) -> str:
    """The path of a line, leaving and arriving level."""
    x1, y1, x2, y2 = line
    middle = (x1 + x2) / 2
    return f"M{x1:.0f} {y1:.1f}C{middle:.0f} {y1:.1f} {middle:.0f} {y2:.1f} {x2:.0f} {y2:.1f}"
