"""The rules page: the rules in force by state with what they did, one of them with its text and past, what waits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, Final, get_args
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import rules_checks, rules_history, rules_texts
from fraudguard.api.console.charts import Spark, spark
from fraudguard.api.console.readers import Editing, HouseReading
from fraudguard.api.console.rendering import Reader, is_fragment, page
from fraudguard.api.services import Services, Use
from fraudguard.decisions.rulebook import NUMBER_MAX, Head
from fraudguard.decisions.rulehits import Judged, Standing
from fraudguard.errors import NotFound
from fraudguard.rulebook import notices
from fraudguard.rules.schema import Rule, State

router = APIRouter()

STATES: Final[tuple[State, ...]] = get_args(State)
SHOWN: Final = ("active", *STATES)  # the page's tabs: `active` is all but the retired
TREND_DAYS: Final = 14
SPAN: Final = timedelta(days=30)  # of precision, hits of one rule, and examples
EXAMPLES_MAX: Final = 8
RuleId = Annotated[str, Path(max_length=100)]
Number = Annotated[int, Path(ge=1, le=NUMBER_MAX)]


@dataclass(frozen=True, slots=True)
class Row:
    """A rule of the list. today: hits of the local day; judged: its disposed alerts of SPAN, None without one."""

    rule: Rule
    today: int
    judged: Judged | None
    trend: Spark
    waits: bool


@router.get("/rules")
async def rules(
    request: Request,
    services: Use,
    reader: HouseReading,
    state: Annotated[str, Query(max_length=16)] = "active",
    q: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """The list beside nothing chosen yet; for htmx the list alone."""
    listed = await listing(request, services, reader, state, q)
    return page("rules_list.html" if is_fragment(request) else "rules.html", reader, "rules", **listed, pane=None)


@router.get("/rules/{rule_id}")
async def rule(
    request: Request,
    services: Use,
    reader: HouseReading,
    rule_id: RuleId,
    state: Annotated[str, Query(max_length=16)] = "active",
    q: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """One rule: its text, versions, what it did; for htmx this pane alone. Raises NotFound."""
    shown = await _rule(request, services, reader, rule_id)
    return await pane(request, services, reader, "rules_rule.html", shown, state, q)


@router.get("/new-rule")
async def new_rule(request: Request, services: Use, reader: Editing) -> Response:
    """The editor with a rule to start from."""
    head = await head_of(services)
    text = rules_checks.template(actor(reader.principal))
    shown = await editor(services, head, None, text) | {"chosen": "", "title": reader.words("rule.new")}
    return await pane(request, services, reader, "rules_new.html", shown)


@router.get("/releases/{number}")
async def release(request: Request, services: Use, reader: HouseReading, number: Number) -> Response:
    """A release: who proposed it, what it changes, who agreed, and what this reader may do about it."""
    head = await head_of(services)
    found = await services.repository.rulebook.release(number)
    said: Sequence[str] = ()
    if waits := rules_history.is_waiting(found, head):
        said = notices(await services.publishing.rules(head), await services.publishing.rules(found))
    agreed = [review.actor for review in found.reviews if review.verdict == "approve"]
    shown = {
        "release": found,
        "head": head,
        "waits": waits,
        "said": said,
        "agreed": agreed,
        "rejected": next((review for review in found.reviews if review.verdict == "reject"), None),
        "needed": services.settings.rules_approvals,
        "own": found.author == actor(reader.principal),
        "mine": actor(reader.principal) in agreed,
        "chosen": f"release-{number}",
        "title": reader.words("release.one", n=number),
    }
    return await pane(request, services, reader, "rules_release.html", shown)


async def pane(
    request: Request,
    services: Services,
    reader: Reader,
    template: str,
    shown: Mapping[str, Any],
    state: str = "active",
    q: str = "",
) -> Response:
    """What is on the right: alone for htmx, else beside the list."""
    if is_fragment(request) and "hx-history-restore-request" not in request.headers:
        return page(template, reader, "rules", **shown, fragment=True)
    listed = await listing(request, services, reader, state, q)
    return page("rules.html", reader, "rules", **{**listed, **shown}, pane=template, fragment=False)


async def listing(request: Request, services: Services, reader: Reader, state: str, q: str) -> dict[str, Any]:
    """The rules of a tab that match, each with its numbers, and what waits."""
    state = state if state in SHOWN else "active"
    head = await services.publishing.head()
    if head is None:
        return {"head": None, "rows": {}, "waiting": [], "counts": {}, "state": state, "q": q, "chosen": ""}
    everything = await services.publishing.rules(head)
    waiting = await rules_history.waiting(services.repository, _texts(request), head)
    wanted = [
        rule
        for rule in everything
        if (rule.state == state or (state == "active" and rule.state != "retired")) and _matches(rule, q)
    ]
    rows = await _rows(services, reader, wanted, {id for one in waiting for id in one.rules})
    counts = {name: sum(rule.state == name for rule in everything) for name in STATES}
    counts["active"] = len(everything) - counts["retired"]
    return {
        "head": head,
        "rows": {name: found for name in STATES if (found := [row for row in rows if row.rule.state == name])},
        "waiting": waiting,
        "counts": counts,
        "state": state,
        "q": q,
        "chosen": "",
    }


def _matches(rule: Rule, q: str) -> bool:
    said = f"{rule.id} {rule.reason} {rule.owner} {rule.description} {rule.when} {rule.outcome}".casefold()
    return all(word in said for word in q.casefold().split())


async def _rows(services: Services, reader: Reader, wanted: Sequence[Rule], waits: set[str]) -> list[Row]:
    zone, now = services.settings.time_zone, reader.now
    first = (now.astimezone(ZoneInfo(zone)) - timedelta(days=TREND_DAYS - 1)).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    hits = services.repository.rulehits
    by_rule: dict[str, dict[date, float]] = {}
    for one in await hits.days(first, zone):
        days = by_rule.setdefault(one.rule, {})
        days[one.day] = days.get(one.day, 0) + one.hits
    judged = await hits.judged(now - SPAN)
    today = now.astimezone(ZoneInfo(zone)).date()
    rows = [
        Row(
            rule,
            int(by_rule.get(rule.id, {}).get(today, 0)),
            judged.get(rule.id),
            spark(by_rule.get(rule.id, {}), now, zone, TREND_DAYS),
            rule.id in waits,
        )
        for rule in wanted
    ]
    return sorted(rows, key=lambda row: (-sum(bar.value for bar in row.trend.bars), row.rule.id))


async def head_of(services: Services) -> Head:
    """The release in force. Raises NotFound before the first worker started."""
    head = await services.publishing.head()
    if head is None:
        raise NotFound("no rules are in force yet")
    return head


def _texts(request: Request) -> rules_history.TextShelf:
    shelf: rules_history.TextShelf = request.app.state.rule_texts
    return shelf


async def find(services: Services, head: Head, rule_id: str) -> Rule:
    """The rule of the release in force. Raises NotFound."""
    for rule in await services.publishing.rules(head):
        if rule.id == rule_id:
            return rule
    raise NotFound(f"no rule {rule_id!r} in force")


async def editor(services: Services, head: Head, rule: Rule | None, text: str) -> dict[str, Any]:
    """What the editor and what it says of its text need."""
    files = await services.publishing.files(head.number)
    in_force = await services.publishing.rules(head)
    checked = rules_checks.check(text, rule, files, in_force, services.fields)
    return {
        "head": head,
        "rule": rule,
        "text": text,
        "checked": checked,
        "approvals": services.settings.rules_approvals,
        "word_at": rules_checks.word_at,
        "fix_of": rules_checks.fix_of,
    }


async def _rule(request: Request, services: Services, reader: Reader, rule_id: str) -> dict[str, Any]:
    head = await head_of(services)
    rule = await find(services, head, rule_id)
    files = await services.publishing.files(head.number)
    text = rules_texts.document(files[rule.file], rule.line)
    repository, since = services.repository, reader.now - SPAN
    shelf = _texts(request)
    waiting = await rules_history.waiting(repository, shelf, head)
    return await editor(services, head, rule, text) | {
        "versions": await rules_history.versions(repository, shelf, rule.id),
        "releases_read": rules_history.RELEASES_READ,
        "waiting_here": [one.release for one in waiting if rule.id in one.rules],
        "trials": _trials(await repository.rulehits.standing(rule.id, since)),
        "examples": await repository.rulehits.newest(rule.id, since, EXAMPLES_MAX),
        "chosen": rule.id,
        "title": rule.id,
    }


@dataclass(slots=True)
class Trial:
    """One version in one state. stronger: hits whose decision came out weaker than the rule asks."""

    version: int
    state: str
    hits: int = 0
    stronger: int = 0
    fraud: int = 0
    harmless: int = 0

    @property
    def precision(self) -> float | None:
        """Share of fraud among the labelled hits."""
        known = self.fraud + self.harmless
        return self.fraud / known if known else None


def _trials(found: Sequence[Standing]) -> list[Trial]:
    """Shadow hits beside live ones, the newest version first."""
    trials: dict[tuple[int, str], Trial] = {}
    for one in found:
        trial = trials.setdefault((one.version, one.state), Trial(one.version, one.state))
        trial.hits += one.hits
        trial.stronger += one.hits if one.asked.severity > one.decided.severity else 0
        trial.fraud += one.fraud
        trial.harmless += one.harmless
    return sorted(trials.values(), key=lambda one: (-one.version, one.state))
