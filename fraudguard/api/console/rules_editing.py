"""What a rule editor does: checks while typing, backtests, proposes; and what a second person says to a proposal."""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from fraudguard.api.auth import actor
from fraudguard.api.console import rules, rules_backtest, rules_checks, rules_texts
from fraudguard.api.console.readers import Editing
from fraudguard.api.console.rendering import Reader, page, render
from fraudguard.api.console.sending import form_of
from fraudguard.api.narrative import EventStream
from fraudguard.api.rules import propose as propose_release
from fraudguard.api.schemas import RuleProposal
from fraudguard.api.services import Services, Use
from fraudguard.decisions.rulebook import NOTE_CHARACTERS_MAX, Head
from fraudguard.errors import BadInput, BadPolicy, BadRule, Conflict
from fraudguard.rules.schema import Rule

router = APIRouter()

Verb = Literal["agree", "refuse"]
ON_TRIAL: Final = frozenset({"draft", "shadow"})
BUSY_S: Final = 5.0  # how long a backtest waits for the one before to end


class _Lines(EventStream):
    """One JSON a line, for as long as a backtest may take."""

    media_type = "application/x-ndjson"
    seconds = rules_backtest.WALL_S_MAX + 10


@router.post("/rule-drafts/check")
async def check(request: Request, services: Use, reader: Editing) -> Response:
    """What is wrong with the text, whether its tests pass, what it would change."""
    fields = await form_of(request)
    head, original = await _original(services, fields)
    shown = await rules.editor(services, head, original, _text(fields))
    return page("rules_checked.html", reader, "rules", **shown)


@router.post("/rule-drafts/propose")
async def propose(request: Request, services: Use, reader: Editing) -> Response:
    """Enter the text as a release; on to it, or what stands against it."""
    fields = await form_of(request)
    head, original = await _original(services, fields)
    text = rules_texts.plain(_text(fields))
    note = fields.get("note", "").strip()
    base = fields.get("base", "")
    if not 1 <= len(note) <= NOTE_CHARACTERS_MAX:
        raise BadInput(f"must be 1 to {NOTE_CHARACTERS_MAX} characters: say why", path="note")
    if not base.isascii() or not base.isdigit() or len(base) > 18:
        raise BadInput("must be the release that was edited", path="base", hint="load the page again")
    try:
        if int(base) != head.number:
            raise Conflict(f"release {head.number} of {head.actor} is in force by now")
        files = await services.publishing.files(head.number)
        changed = rules_checks.placed(files, original, text)
        proposal = RuleProposal(files=changed, base=int(base), note=note)
        done = await propose_release(services, actor(reader.principal), proposal)
    except Conflict as error:
        return await _overtaken(services, reader, int(base), original, error)
    except (BadRule, BadPolicy) as error:
        return page("rules_said.html", reader, "rules", 422, kind="bad", problem=str(error))
    return Response(status_code=204, headers={"HX-Redirect": f"/console/releases/{done.number}"})


async def _overtaken(services: Services, reader: Reader, base: int, original: Rule | None, error: Conflict) -> Response:
    """Somebody's release took over meanwhile: who, what it did to this rule, and how to go on."""
    head = await services.publishing.head()
    moved = head is not None and head.number != base
    theirs: list[str] = []
    if moved and original is not None:
        before = rules_texts.documents(await services.publishing.files(base)).get(original.id, "")
        after = rules_texts.documents(await services.publishing.files(head.number)).get(original.id, "")
        theirs = rules_texts.difference(before, after)
    shown = {"kind": "overtaken" if moved else "same", "head": head, "theirs": theirs, "problem": str(error)}
    return page("rules_said.html", reader, "rules", 409, **shown)


@router.post("/releases/{number}/{verb}")
async def review(request: Request, services: Use, reader: Editing, number: rules.Number, verb: Verb) -> Response:
    """Agree to somebody else's release, or end one; its author ends it only. Then the release as it is now."""
    note = (await form_of(request)).get("note", "").strip()
    who, now = actor(reader.principal), services.clock.now()
    if verb == "agree":
        await services.publishing.approve(number, who, note, now)
    else:
        await services.publishing.reject(number, who, note, now)
    return Response(status_code=204, headers={"HX-Redirect": f"/console/releases/{number}"})


@router.post("/rule-drafts/backtest")
async def backtest(request: Request, services: Use, reader: Editing) -> Response:
    """The text over the decisions of 30 days: lines of JSON with `taken`, at the end `html`. Leaving ends it.

    A rule on trial is tried as if it were live, for otherwise it would change nothing.
    """
    fields = await form_of(request)
    head, original = await _original(services, fields)
    files = await services.publishing.files(head.number)
    text = rules_texts.plain(_text(fields))
    checked = rules_checks.check(text, original, files, await services.publishing.rules(head), services.fields)
    if checked.rule is None or checked.failed:
        return page("rules_backtest.html", reader, "rules", 422, problem=reader.words("rule.backtest_mend"))
    as_live = checked.rule.state in ON_TRIAL
    changed = rules_checks.placed(files, original, rules_texts.in_state(text, "live") if as_live else text)
    candidate = {name: one for name, one in {**files, **changed}.items() if one is not None}
    lines = _backtest(services, reader, candidate, checked.rule, as_live)
    return _Lines(lines, partial(services.streams.watched, request), headers={"X-Accel-Buffering": "no"})


async def _backtest(
    services: Services, reader: Reader, files: Mapping[str, str], rule: Rule, as_live: bool
) -> AsyncGenerator[str, None]:
    shown: dict[str, Any] = {"rule": rule, "as_live": as_live, "found": None, "charts": [], "problem": ""}
    try:
        async with asyncio.timeout(BUSY_S):  # whoever starts a second one has just left the first
            await services.backtests.acquire()
    except TimeoutError:
        shown["problem"] = reader.words("rule.backtest_busy")
    else:
        try:
            async with aclosing(rules_backtest.backtest(services.settings, files, rule.id)) as steps:
                async for step in steps:
                    match step:
                        case rules_backtest.Progress(taken):
                            yield json.dumps({"taken": taken}) + "\n"
                        case rules_backtest.Failed(reason):
                            shown["problem"] = reason
                        case rules_backtest.Backtest():
                            shown |= {"found": step, "charts": rules_backtest.charts(step)}
        finally:
            services.backtests.release()
    yield json.dumps({"html": render("rules_backtest.html", reader, "rules", **shown)}) + "\n"


async def _original(services: Services, fields: Mapping[str, str]) -> tuple[Head, Rule | None]:
    """The release in force, and of it the rule that the form is about; None for a new one. Raises NotFound."""
    head = await rules.head_of(services)
    name = fields.get("rule", "")[:100]
    return head, await rules.find(services, head, name) if name else None


def _text(fields: Mapping[str, str]) -> str:
    text = fields.get("text", "")
    if len(text) > rules_texts.TEXT_CHARACTERS_MAX:
        raise BadInput(f"must be at most {rules_texts.TEXT_CHARACTERS_MAX:,} characters", path="text")
    return text
