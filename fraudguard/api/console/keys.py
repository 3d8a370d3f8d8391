"""Every key of the console: one table, from which pages act and `?` draws its help."""

from dataclasses import dataclass
from typing import Final, Literal

Place = Literal["everywhere", "queue", "case", "decisions", "rules", "lists", "model", "operations"]


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
    Key("everywhere", "g r", "go_rules"),
    Key("everywhere", "g l", "go_lists"),
    Key("everywhere", "g m", "go_model"),
    Key("everywhere", "g o", "go_operations", leads=True),
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
    Key("queue", "]", "inbox_next"),
    Key("queue", "[", "inbox_previous"),
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
    Key("decisions", "j", "down"),
    Key("decisions", "k", "up"),
    Key("decisions", "Enter", "open"),
    Key("rules", "j", "down"),
    Key("rules", "k", "up"),
    Key("rules", "Enter", "open"),
    Key("rules", "]", "state_next"),
    Key("rules", "[", "state_previous"),
    Key("rules", "e", "edit"),
    Key("rules", "!", "mistake"),
    Key("rules", "s", "to_shadow"),
    Key("rules", "l", "to_live"),
    Key("rules", "x", "to_retired"),
    Key("rules", "b", "backtest"),
    Key("rules", "p", "propose"),
    Key("rules", "n", "new_rule"),
    Key("rules", "w", "waiting"),
    Key("rules", "a", "agree"),
    Key("rules", "r", "refuse"),
    Key("lists", "j", "down"),
    Key("lists", "k", "up"),
    Key("lists", "Enter", "open"),
    Key("lists", "]", "list_next"),
    Key("lists", "[", "list_previous"),
    Key("lists", "n", "add_entry"),
    Key("lists", "x", "remove"),
    Key("lists", "f", "find"),
    Key("model", "p", "promote", leads=True),
    Key("model", "r", "roll_back", leads=True),
    Key("operations", "j", "down"),
    Key("operations", "k", "up"),
    Key("operations", "r", "replay", leads=True),
    Key("operations", "R", "replay_all", leads=True),
)


def keys_of(place: Place, *, leads: bool) -> tuple[Key, ...]:
    """The page's own keys, then those that work everywhere. leads: with those that are theirs alone."""
    own = [key for key in KEYS if leads or not key.leads]
    return tuple(key for wanted in (place, "everywhere") for key in own if key.place == wanted)
