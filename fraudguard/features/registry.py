"""The name, type, unit, window and meaning of every value that rules may use and the model's head may read.

Knows what is declared, not how it is computed: event.py, velocity.py, profile.py, feedback.py and trend.py fill the
values, the engine fills the rest of the `score` group and the timeline gives the `conversation` group. An event's own
attributes are usable in rules as `attributes.NAME`; they are not declared here because senders choose their names. Nor
are the windows of rules/features.yaml, which risk managers choose.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Final, Literal

from fraudguard.domain import WEEKDAYS, Feature

WINDOWS: Final = ("1h", "1d", "7d", "30d")
FEEDBACK_KINDS: Final = ("counterparty", "device", "ip", "merchant")
WINDOWS_DAYS: Final = (1, 7, 30)

_Type = Literal["number", "text", "boolean"]


def _event() -> Iterator[Feature]:
    rows: tuple[tuple[str, _Type, str, str, bool], ...] = (
        ("event_type", "text", "", "`transaction` or `message`", False),
        ("direction", "text", "", "`debit` or `credit`, seen from the account; missing for messages", False),
        (
            "kind",
            "text",
            "",
            "`transfer`, `card`, `cash`, `top_up`, `bill`, `refund`, `other`; missing for messages",
            False,
        ),
        ("channel", "text", "", "where the transaction or message took place", False),
        ("amount", "number", "event's currency", "amount as sent; missing for messages", False),
        ("currency", "text", "", "ISO 4217 code; missing for messages", False),
        ("amount_base", "number", "base currency", "amount at the reference rate; missing without a rate", True),
        ("counterparty_id", "text", "", "the other side; missing where none was sent", False),
        ("merchant_id", "text", "", "the merchant; missing where none was sent", False),
        ("device_id", "text", "", "the customer's device; missing where none was sent", False),
        ("ip", "text", "", "network address; missing where none was sent", False),
        ("country", "text", "", "ISO 3166 code; missing where none was sent", False),
        ("memo", "text", "", "memo of the transaction, masked; missing where none was sent", False),
        ("sender", "text", "", "`customer`, `counterparty`, `agent`, `system`; missing for transactions", False),
        ("language", "text", "", "language of the message as sent; missing where none was sent", False),
        ("text", "text", "", "the whole text of the message, masked; missing for transactions", False),
        ("hour", "number", "hour", "hour of day of the event time, 0 to 23, in UTC", True),
        ("late", "boolean", "", "came beyond the lateness bound; changes no window and no profile", False),
        ("account_id", "text", "", "the account", False),
        ("local_time", "number", "hour of day", "local time of day of the event, 22.5 is half past ten", False),
        ("weekday", "text", "", f"local day of the week: {', '.join(f'`{day}`' for day in WEEKDAYS)}", False),
        ("day_of_month", "number", "day", "local day of the month, 1 to 31", False),
        ("month", "number", "month", "local month, 1 to 12", False),
        ("is_weekend", "boolean", "", "a local Saturday or Sunday", False),
    )
    for name, kind, unit, meaning, model in rows:
        yield Feature(name, kind, unit, "", meaning, "event", model)


def _velocity() -> Iterator[Feature]:
    rows = (
        ("transfers", "count", "outgoing transfers"),
        ("out_count", "count", "outgoing transactions (debits)"),
        ("out_sum", "base currency", "sum of outgoing transactions"),
        ("out_max", "base currency", "largest outgoing transaction; 0 where there was none"),
        ("out_counterparties", "count", "distinct counterparties paid"),
        ("in_count", "count", "incoming transactions (credits)"),
        ("in_sum", "base currency", "sum of incoming transactions"),
        ("in_max", "base currency", "largest incoming transaction; 0 where there was none"),
        ("in_counterparties", "count", "distinct counterparties received from"),
        ("messages", "count", "messages of every sender"),
    )
    for name, unit, meaning in rows:
        for window in WINDOWS:
            yield Feature(f"{name}_{window}", "number", unit, window, f"{meaning}, with this event", "velocity", True)


def _profile() -> Iterator[Feature]:
    rows: tuple[tuple[str, _Type, str, str], ...] = (
        ("amount_usual", "number", "base currency", "usual outgoing amount until now; missing before the first"),
        ("amount_ratio", "number", "ratio", "this outgoing amount over the usual one; missing where either is"),
        ("amount_z", "number", "deviations", "its log against the usual; missing before three outgoing amounts"),
        ("hour_share", "number", "share", "earlier events in this UTC hour of day; missing for the first event"),
        ("hours_since_last", "number", "hours", "since the latest event, at least 0; missing for the first event"),
        ("account_events", "number", "count", "earlier events of the account, late ones not counted"),
        ("account_age_days", "number", "days", "since the account's first event, at least 0"),
        (
            "is_new_counterparty",
            "boolean",
            "",
            "nothing earlier with it in this direction; missing where there is none",
        ),
        (
            "counterparty_payments",
            "number",
            "count",
            "earlier debits to this counterparty; missing where there is none",
        ),
        ("is_new_device", "boolean", "", "not a known device; missing where there is none or none was known"),
        ("is_new_country", "boolean", "", "not a known country; missing where there is none or none was known"),
        ("messages_since_payment", "number", "count", "messages since the last debit, with this event"),
        ("counterparty_message_share", "number", "share", "of them, by the counterparty; missing where there are none"),
        ("hours_since_message", "number", "hours", "since the latest earlier message, at least 0; missing if none"),
    )
    for name, kind, unit, meaning in rows:
        yield Feature(name, kind, unit, "", meaning, "profile", True)


def _feedback() -> Iterator[Feature]:
    for kind in FEEDBACK_KINDS:
        for days in WINDOWS_DAYS:
            span = f"in the {days} whole UTC days that ended a label delay ago"
            share = f"confirmed fraud among the {kind}'s transactions {span}; missing where there were none"
            count = f"the {kind}'s transactions over all accounts {span}; missing where the event has no {kind}"
            model = kind != "ip"  # the shipped head was trained without it
            yield Feature(f"{kind}_fraud_share_{days}d", "number", "share", f"{days}d", share, "feedback", model)
            yield Feature(f"{kind}_transactions_{days}d", "number", "count", f"{days}d", count, "feedback", model)


def _later() -> Iterator[Feature]:
    said = "texts of the timeline's messages in the day up to the event, one a line, as the model reads them"
    yield Feature("chat", "text", "", "1d", f"{said}; missing where there is none", "conversation")
    yield Feature("risk", "number", "probability", "", "calibrated P(fraud); missing when degraded", "score")
    yield Feature("typology", "text", "", "", "the kind of fraud the model sees; missing when degraded", "score")
    yield Feature("degraded", "boolean", "", "", "the event is decided without the model", "score")
    rows: tuple[tuple[str, _Type, str, str], ...] = (
        ("risk_previous", "number", "probability", "risk of the account's earlier event that was scored last"),
        ("risk_change", "number", "probability", "`risk_previous` less the oldest risk of the last five; 0 with one"),
        ("risk_max_5", "number", "probability", "largest risk of the account's last five earlier scores"),
        ("risk_mean_5", "number", "probability", "mean risk of the account's last five earlier scores"),
        ("typology_previous", "text", "", "typology of the account's earlier event that was scored last"),
        ("typology_changes_5", "number", "count", "how often it changed over the last five earlier scores, 0 to 4"),
    )
    for name, kind, unit, meaning in rows:
        yield Feature(name, kind, unit, "", f"{meaning}; missing where there are none", "score")


FEATURES: Final[tuple[Feature, ...]] = (*_event(), *_velocity(), *_profile(), *_feedback(), *_later())
MODEL_FEATURES: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES if feature.model)


def families(names: Collection[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The features of these names by (group, family): one value's windows, such as transfers_1h to _30d, are a family.

    A feature without a window is one of its own. In the registry's order.
    """
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for feature in FEATURES:
        if feature.name in names:
            key = feature.group, feature.name.removesuffix(f"_{feature.window}") if feature.window else feature.name
            found[key] = (*found.get(key, ()), feature.name)
    return found


def features_in(base: str) -> tuple[Feature, ...]:
    """The registry with the code of the base currency as the unit of amounts in it."""
    return tuple(replace(feature, unit=base) if feature.unit == "base currency" else feature for feature in FEATURES)


def render_markdown(declared: Sequence[Feature] = ()) -> str:
    """The registry as docs/features.md. declared: the windows of a rule set, shown beside the built-ins."""
    lines = [
        "# Features",
        "",
        "Made from `fraudguard/features/registry.py`; a test keeps it current.",
        "",
        "Rules use these names, and `attributes.NAME` for an event's own attributes.",
        "Features marked *model* are inputs of the model's head; what a window covers exactly is in `velocity.py`.",
        "`hour` and `hour_share` are in UTC; the local time, day and month are those of the setting `time_zone`.",
    ]
    features = (*FEATURES, *declared)
    for group in dict.fromkeys(feature.group for feature in features):
        lines += ["", f"## {group}", ""]
        if group == "declared":
            lines += [*_DECLARED, ""]
        lines += ["| name | type | unit | window | model | meaning |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{f.name}` | {f.type} | {f.unit} | {f.window} | {'model' if f.model else ''} | {f.meaning} |"
            for f in features
            if f.group == group
        ]
    if not declared:
        lines += ["", "## declared", "", *_DECLARED]
    return "\n".join(lines) + "\n"


_DECLARED: Final = (
    "Windows that a rule set declares in `rules/features.yaml`, each over the events of one account, counterparty,",
    "device, network address (`ip`) or merchant: count, sum, max, mean or distinct of one field of the events that its",
    "filter lets through. This event counts too, unless it is late. A window of n seconds is counted in 48 buckets and",
    "covers between 47/48 of n and n.",
    "",
    "- Missing where the event has no such entity (a message has none but the account), and of an account until its",
    "  history is counted in. Where nothing counted, count, sum and distinct are 0, max and mean are missing.",
    "- Sums, largest and mean values are of whole hundredths. Distinct values are counted by their hash: of an",
    "  account, at most 32 for each bucket; of what accounts share, estimated beyond a few dozen.",
)
