"""What a rule pack declares beside its rules: windows of its own (features.yaml) and watch lists (lists.yaml).

Knows the shape of both files and what a window may count; nothing of how it is counted, or of a list's entries.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import yaml

from fraudguard.domain import ENTITY_FIELDS, Entity, Feature, Scalar, WatchList, Window
from fraudguard.rules.documents import Entry, Patterns, Problem, Reader
from fraudguard.rules.expression import Fault, Field, Listed, Node, membership, walk
from fraudguard.rules.predicates import Predicates, SearchFault
from fraudguard.rules.reference import holds
from fraudguard.rules.validators import ATTRIBUTE, check_condition, field_type, suggest
from fraudguard.rules.values import read_values

FEATURES_FILE: Final = "features.yaml"
LISTS_FILE: Final = "lists.yaml"
DECLARATIONS_MAX: Final = 200  # of one kind
SECONDS: Final = {"m": 60, "h": 3_600, "d": 86_400}
SECONDS_MIN, SECONDS_MAX = 600, 90 * 86_400
SUMMABLE: Final = ("amount_base",)
COUNTABLE: Final = (*ENTITY_FIELDS.values(), "country")

Aggregate = Literal["count", "sum", "max", "mean", "distinct"]
ListKind = Literal["allow", "block"]

# Words that mean something where a feature's name can stand.
RESERVED: Final = frozenset(ENTITY_FIELDS) | {
    "and", "or", "not", "in", "is", "known", "missing", "between", "mentions", "contains", "starts", "ends", "with",
    "matches", "true", "false", "attributes",
}  # fmt: skip
_NAME = (r"[a-z][a-z0-9_]*", "small letters, digits and _, like card_declines_1h")
_ENTITY = ("|".join(get_args(Entity)), "one of " + ", ".join(get_args(Entity)))
WINDOW_KEYS: Final = ("name", "owner", "meaning", "entity", "aggregate", "of", "where", "window")
WINDOW_REQUIRED: Final = ("name", "owner", "meaning", "entity", "aggregate", "window")
WINDOW_PATTERNS: Final[Patterns] = {
    "name": _NAME,
    "owner": (r"(?s)\S.*", "who answers for this feature"),
    "meaning": (r"(?s)\S.*", "what it counts, in a few words"),
    "entity": _ENTITY,
    "aggregate": ("|".join(get_args(Aggregate)), "one of " + ", ".join(get_args(Aggregate))),
    "of": (r"\S.*", "what is summed or counted, like amount_base"),
    "window": (r"[1-9]\d{0,5}[mhd]", "a number and m, h or d, from 10m to 90d, like 24h"),
}
LIST_KEYS: Final = ("name", "kind", "entity", "owner", "description")
LIST_PATTERNS: Final[Patterns] = {
    "name": (_NAME[0], "small letters, digits and _, like mule_accounts"),
    "kind": ("|".join(get_args(ListKind)), "one of " + ", ".join(get_args(ListKind))),
    "entity": _ENTITY,
    "owner": (r"(?s)\S.*", "who answers for this list"),
    "description": (r"(?s)\S.*", "who belongs on it"),
}
LENGTHS: Final = {"name": 64, "meaning": 500, "description": 2_000}


@dataclass(frozen=True, slots=True)
class Declarations:
    """What the two files declare. features: of every window, and of every list the boolean `FIELD in @LIST`.

    A window or list with a mistake is in `features` all the same, so that the rules that name it are not blamed too.
    """

    windows: tuple[Window, ...]
    lists: tuple[WatchList, ...]
    features: tuple[Feature, ...]
    problems: tuple[Problem, ...]


def read_declarations(sources: Mapping[str, str], fields: Sequence[Feature]) -> Declarations:
    """Read features.yaml and lists.yaml, where the pack has them. fields: the built-in features."""
    known = {feature.name: feature for feature in fields}
    windows = _WindowReader(FEATURES_FILE, sources.get(FEATURES_FILE, ""), known)
    lists = _ListReader(LISTS_FILE, sources.get(LISTS_FILE, ""), known)
    return Declarations(
        windows=tuple(window for item in windows.items() if (window := windows.window(item))),
        lists=tuple(watch_list for item in lists.items() if (watch_list := lists.watch_list(item))),
        features=(*windows.features.values(), *lists.features.values()),
        problems=(*windows.problems, *lists.problems),
    )


class _Declarations(Reader):
    """Reads a file that is one list of named things."""

    def __init__(self, file: str, text: str, known: Mapping[str, Feature]) -> None:
        super().__init__(file, text)
        self.known = known
        self.features: dict[str, Feature] = {}
        self._lines: dict[str, int] = {}

    def items(self) -> Sequence[yaml.Node]:
        """The entries of the list; none for an empty file."""
        documents = self.documents() or []
        for extra in documents[1:]:
            self.problem(extra.start_mark.index, f"{self.file} is one document", "remove the --- above")
        if not documents:
            return ()
        if not isinstance(documents[0], yaml.SequenceNode):
            self.problem(documents[0].start_mark.index, f"{self.file} is a list", "each entry begins with `- name:`")
            return ()
        items: Sequence[yaml.Node] = documents[0].value
        if len(items) > DECLARATIONS_MAX:
            at = items[DECLARATIONS_MAX].start_mark.index
            self.problem(at, f"{len(items)} entries", f"at most {DECLARATIONS_MAX}")
        return items[:DECLARATIONS_MAX]

    def name(self, what: str, entries: Mapping[str, Entry], words: Mapping[str, str]) -> str:
        """The entry's name, which is noted if it is taken."""
        name = words.get("name", "")
        if not name:
            return ""
        at = entries["name"][1].start_mark.index
        if name in self._lines:
            self.problem(at, f"the {what} {name} is there already", f"in line {self._lines[name]}; names are unique")
        self._lines.setdefault(name, self.place(at).line)
        return name


class _WindowReader(_Declarations):
    """Reads features.yaml."""

    def window(self, node: yaml.Node) -> Window | None:
        """The window that an entry declares, and its feature; None when something is wrong with it."""
        before = len(self.problems)
        entries = self.mapping(node, "a feature", WINDOW_KEYS, WINDOW_REQUIRED, "- begins the next feature")
        if entries is None:
            return None
        words = self.words(entries, WINDOW_PATTERNS, LENGTHS)
        name = self.name("feature", entries, words)
        if name in RESERVED or name in self.known:
            why = "a feature that is built in" if name in self.known else "a word of the language"
            self.problem(entries["name"][1].start_mark.index, f"{name} is {why}", "choose another name")
        seconds = self._seconds(entries, words)
        of = self._of(entries, words)
        tree = self.expression("where", entries["where"][1], self._check) if "where" in entries else None
        if name and name not in RESERVED and name not in self.known:
            self.features[name] = self._feature(name, words, of)
        if len(self.problems) > before:
            return None
        entity, aggregate = words["entity"], words["aggregate"]
        told = repr((entity, aggregate, of, seconds, tree))  # a tree's repr leaves out where its parts stand
        key = hashlib.sha256(told.encode()).hexdigest()[:16]
        matches = _everything if tree is None else _filter(tree, self.known)
        return Window(name, entity, aggregate, of, seconds, key, matches)  # type: ignore[arg-type]  # by WINDOW_PATTERNS

    def _seconds(self, entries: Mapping[str, Entry], words: Mapping[str, str]) -> int:
        length = words.get("window", "")
        if not length[:-1].isdigit() or length[-1] not in SECONDS:
            return 0
        seconds = int(length[:-1]) * SECONDS[length[-1]]
        if not SECONDS_MIN <= seconds <= SECONDS_MAX:
            self.problem(entries["window"][1].start_mark.index, f"a window of {length}", "from 10m to 90d")
        return seconds

    def _of(self, entries: Mapping[str, Entry], words: Mapping[str, str]) -> str:
        of, aggregate = words.get("of", ""), words.get("aggregate", "")
        if aggregate not in get_args(Aggregate):
            return of
        if aggregate == "count":
            if "of" in entries:
                self.problem(entries["of"][0].start_mark.index, "count counts events, of nothing", "leave `of` away")
            return ""
        fitting = COUNTABLE if aggregate == "distinct" else SUMMABLE
        own_ids = ENTITY_FIELDS.get(words.get("entity"))  # type: ignore[call-overload]  # None for any other word
        if "of" not in entries:
            hint = f"add of: {fitting[0] if fitting[0] != own_ids else fitting[1]}, or an attribute"
            self.problem(entries["aggregate"][1].start_mark.index, f"{aggregate} needs `of`", hint)
        elif of and of == own_ids:
            message = f"each {words['entity']} has one {of}"
            self.problem(entries["of"][1].start_mark.index, message, "count another field, or use aggregate: count")
        elif of and of not in fitting and not (of.startswith(ATTRIBUTE) and len(of) > len(ATTRIBUTE)):
            self._unfit(entries["of"][1].start_mark.index, of, aggregate, fitting)
        return of

    def _unfit(self, at: int, of: str, aggregate: str, fitting: Sequence[str]) -> None:
        kind = field_type(of, self.known)
        choice = ", ".join(fitting) + " or attributes.NAME"
        if of == "amount":
            self.problem(at, "amounts in different currencies have no " + aggregate, "amount_base is in one currency")
        elif kind is None:
            self.problem(at, f"unknown field {of}", suggest(of, fitting) or f"{aggregate} can be of {choice}")
        else:
            self.problem(at, f"{aggregate} cannot be of {of}", f"it can be of {choice}")

    def _check(self, tree: Node) -> list[Fault]:
        faults = check_condition(tree, self.known)
        for node in walk(tree):
            if isinstance(node, Field) and field_type(node.name, self.known) is not None and not self._own(node.name):
                hint = "a window counts events by what was sent, like kind or amount_base"
                faults.append(Fault(node.at, f"{node.name} is not of the event itself", hint))
        # Lists are unknown to a window, whatever lists.yaml says: that is what to tell.
        listed = {node.list_at for node in walk(tree) if isinstance(node, Listed)}
        told = [Fault(at, "lists cannot be asked here", "ask in the rule that uses the feature") for at in listed]
        return [*(fault for fault in faults if fault.at not in listed), *told]

    def _own(self, name: str) -> bool:
        return name.startswith(ATTRIBUTE) or self.known[name].group == "event"

    def _feature(self, name: str, words: Mapping[str, str], of: str) -> Feature:
        unit = "count" if words.get("aggregate") in {"count", "distinct"} else ""
        if of in self.known:
            unit = unit or self.known[of].unit
        return Feature(name, "number", unit, words.get("window", ""), words.get("meaning", ""), "declared")


class _ListReader(_Declarations):
    """Reads lists.yaml."""

    def watch_list(self, node: yaml.Node) -> WatchList | None:
        """The list that an entry declares, and its feature; None when something is wrong with it."""
        before = len(self.problems)
        entries = self.mapping(node, "a list", LIST_KEYS, LIST_KEYS, "- begins the next list")
        if entries is None:
            return None
        words = self.words(entries, LIST_PATTERNS, LENGTHS)
        name = self.name("list", entries, words)
        field = ENTITY_FIELDS.get(words.get("entity"))  # type: ignore[call-overload]  # None for any other word
        if name and field:
            asked = membership(field, name)
            meaning = f"whether {field} is on the {words.get('kind', '')} list {name}; missing where it is"
            self.features[asked] = Feature(asked, "boolean", "", "", meaning, "declared")
        return WatchList(**words) if len(self.problems) == before else None  # type: ignore[arg-type]  # by LIST_PATTERNS


def _everything(inputs: Mapping[str, Scalar]) -> bool:
    return True


def _filter(tree: Node, known: Mapping[str, Feature]) -> Callable[[Mapping[str, Scalar]], bool]:
    """Whether an event's own features meet the condition."""
    slots = [(name, field_type(name, known)) for name in sorted(_names(tree))]
    compiled = Predicates([tree])

    def matches(inputs: Mapping[str, Scalar]) -> bool:
        values = read_values(slots, inputs)
        try:
            return compiled.evaluate(values)[0]
        except SearchFault:
            return holds(tree, values)

    return matches


def _names(tree: Node) -> Iterable[str]:
    return {node.name for node in walk(tree) if isinstance(node, Field)}
