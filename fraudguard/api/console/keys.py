"""Every key of the console: one table, from which pages act and `?` draws its help."""

from dataclasses import dataclass
from typing import Final, Literal

Place = Literal["everywhere", "queue", "case", "decisions"]


@dataclass(frozen=True, slots=True)
class Key:
    """press: as a KeyboardEvent's `key`, `shift+a`, `ctrl+z`, or two pressed one after the other, `g q`.

    action: what a script under static/ does; its words are `key.<action>` of the catalogue. leads: theirs alone.
    """

    place: Place
    press: str
    action: str
    leads: bool = False


KEYS: Final = (
    Key("everywhere", "?", "help"),
    Key("everywhere", "g q", "go_queue"),
    Key("everywhere", "g d", "go_decisions"),
    Key("everywhere", "/", "filter"),
    Key("everywhere", "Escape", "leave"),
    Key("everywhere", "L", "language"),
    Key("everywhere", "D", "theme"),
    Key("queue", "j", "down"),
    Key("queue", "k", "up"),
    Key("queue", "Enter", "open"),
    Key("queue", "ctrl+z", "undo"),
    Key("queue", "c", "claim"),
    Key("queue", "z", "snooze"),
    Key("queue", "e", "escalate"),
    Key("queue", "s", "order"),
    Key("queue", "x", "select", leads=True),
    Key("queue", "X", "select_all", leads=True),
    Key("queue", "A", "assign", leads=True),
    Key("queue", "b", "block", leads=True),
    Key("queue", "a", "approve", leads=True),
    Key("queue", "]", "inbox_next"),
    Key("queue", "[", "inbox_previous"),
    Key("case", "j", "line_down"),
    Key("case", "k", "line_up"),
    Key("case", "]", "line_next"),
    Key("case", "[", "line_previous"),
    Key("case", "b", "block"),
    Key("case", "a", "approve"),
    Key("case", "n", "next"),
    Key("case", "ctrl+z", "undo"),
    Key("case", "c", "claim"),
    Key("case", "z", "snooze"),
    Key("case", "e", "escalate"),
    Key("case", "w", "note"),
    Key("case", "u", "unmask"),
    Key("case", "t", "tell"),
    Key("case", "r", "step_up"),
    Key("case", "C", "renew"),
    Key("case", "l", "list"),
    Key("case", "v b", "alert_block"),
    Key("case", "v a", "alert_approve"),
    Key("case", "m", "join"),
    Key("case", "f", "attach"),
    Key("case", "o", "older"),
    Key("case", ".", "reload"),
    Key("case", "h", "history"),
    Key("case", "A", "assign", leads=True),
    Key("decisions", "j", "down"),
    Key("decisions", "k", "up"),
    Key("decisions", "Enter", "open"),
    Key("decisions", "o", "more"),
)


def keys_of(place: Place, *, leads: bool) -> tuple[Key, ...]:
    """The page's own keys, then those that work everywhere. leads: with those that are theirs alone."""
    own = [key for key in KEYS if leads or not key.leads]
    return tuple(key for wanted in (place, "everywhere") for key in own if key.place == wanted)
