"""The rule book: what is in force, its files, releases, approvals, rollback. The same as `fraudguard rules` does.

Knows HTTP; what a release must satisfy is rulebook.py's. The API's own rules directory plays no part.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Query

from fraudguard.api import examples
from fraudguard.api.auth import Serves, actor
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError
from fraudguard.api.schemas import (
    Approved,
    Checked,
    Published,
    ReleaseBrief,
    ReleaseDetail,
    ReleasePage,
    ReleaseQuery,
    Remark,
    Rollback,
    RuleBrief,
    RuleChange,
    RuleFiles,
    RuleProposal,
    RulesInForce,
)
from fraudguard.api.services import Services, Use
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.rulebook import NUMBER_MAX, Head
from fraudguard.domain import Role
from fraudguard.errors import BadPolicy, BadRule, Conflict
from fraudguard.features.registry import features_in
from fraudguard.rulebook import Pack, Proposed, diff, pack_of

router = APIRouter(tags=["rules"])

READERS = Serves(*Role, house=True)
EDITORS = Serves(Role.RULE_EDITOR, house=True)
Editor = Annotated[Principal, Depends(EDITORS)]
Number = Annotated[int, Path(ge=1, le=NUMBER_MAX, examples=[2])]
Rejected = Annotated[int, Path(ge=1, le=NUMBER_MAX, examples=[3])]
Agreement = Annotated[Remark, Body(examples=[examples.AGREEMENT])]
Objection = Annotated[Remark, Body(examples=[examples.OBJECTION])]


async def _head(services: Services) -> Head:
    head = await services.publishing.head()
    if head is None:
        raise ProblemError(404, "rules_unknown", "no rules are in force yet", hint="start a worker")
    return head


@router.get(
    "/v1/rules",
    summary="The rules in force",
    responses=shown(examples.RULES) | refusals(401, 403, 404, 503),
    dependencies=[Depends(READERS)],
)
async def rules_in_force(services: Use) -> RulesInForce:
    """Every rule of the release that decides; 404 before the first worker started."""
    head = await _head(services)
    rules = await services.publishing.rules(head)
    return RulesInForce(
        release=head.number,
        rules_version=head.rules_version,
        policy_version=head.policy_version,
        at=head.at,
        actor=head.actor,
        rules=tuple(map(RuleBrief.model_validate, rules)),
    )


@router.get(
    "/v1/rules/files",
    summary="The files in force",
    responses=shown(examples.FILES) | refusals(401, 403, 404, 503),
    dependencies=[Depends(READERS)],
)
async def files_in_force(services: Use) -> RuleFiles:
    """To be edited and sent back with `release` as `base`."""
    head = await _head(services)
    return RuleFiles(release=head.number, files=await services.publishing.files(head.number))


@router.post(
    "/v1/rules/check",
    summary="Try changed files",
    responses=shown(examples.CHECKED) | refusals(401, 403, 404, 413, 422, 503),
    dependencies=[Depends(EDITORS)],
)
async def check(services: Use, change: Annotated[RuleChange, Body(examples=[examples.CHANGE])]) -> Checked:
    """Everything that publishing would check, the rules' own cases included; changes nothing."""
    head = await _head(services)
    old = await services.publishing.files(head.number)
    try:
        async with _read(services, _changed(old, change)) as pack:
            notices = await services.publishing.notices(pack)
            return Checked(faults="", notices=notices, diff=await asyncio.to_thread(diff, old, pack.files))
    except (BadRule, BadPolicy) as error:
        return Checked(faults=str(error), notices=(), diff="")


@router.post(
    "/v1/rules/releases",
    status_code=201,
    summary="Publish changed files",
    responses=shown(examples.PUBLISHED, 201) | refusals(401, 403, 404, 409, 413, 422, 503),
)
async def publish(
    services: Use, caller: Editor, proposal: Annotated[RuleProposal, Body(examples=examples.PROPOSALS)]
) -> Published:
    """Enters a release; it decides once another person has approved it, where that is asked for."""
    done = await propose(services, actor(caller), proposal)
    return Published(number=done.number, active=done.active, notices=done.notices)


@router.get(
    "/v1/rules/releases",
    summary="Releases, newest first",
    responses=shown({"items": [examples.RELEASE_BRIEF], "next": None}) | refusals(401, 403, 422, 503),
    dependencies=[Depends(READERS)],
)
async def list_releases(services: Use, query: Annotated[ReleaseQuery, Query()]) -> ReleasePage:
    """Each with its reviews, and whether it decides."""
    page = await services.repository.rulebook.releases(query.limit, query.cursor)
    return ReleasePage(items=tuple(map(ReleaseBrief.model_validate, page.items)), next=page.next)


@router.get(
    "/v1/rules/releases/{number}",
    summary="One release",
    responses=shown(examples.RELEASE) | refusals(401, 403, 404, 422, 503),
    dependencies=[Depends(READERS)],
)
async def get_release(services: Use, number: Number) -> ReleaseDetail:
    """With its difference from the one before, and its reviews."""
    return ReleaseDetail.model_validate(await services.repository.rulebook.release(number))


@router.post(
    "/v1/rules/releases/{number}/approve",
    summary="Agree to somebody else's release",
    responses=shown({"number": 2, "active": True}) | refusals(401, 403, 404, 409, 413, 422, 503),
)
async def approve(services: Use, caller: Editor, number: Number, remark: Agreement) -> Approved:
    """With enough approvals it is in force on all workers from their next batch on. 409 for one's own."""
    active = await services.publishing.approve(number, actor(caller), remark.note, services.clock.now())
    return Approved(number=number, active=active)


@router.post(
    "/v1/rules/releases/{number}/reject",
    summary="End a release that waits",
    responses=shown({"number": 3, "active": False}) | refusals(401, 403, 404, 409, 413, 422, 503),
)
async def reject(services: Use, caller: Editor, number: Rejected, remark: Objection) -> Approved:
    """It can never be put in force. Its author withdraws it so."""
    await services.publishing.reject(number, actor(caller), remark.note, services.clock.now())
    return Approved(number=number, active=False)


@router.post(
    "/v1/rules/rollback",
    summary="Put an earlier release in force again",
    responses=shown({"number": 1, "active": True}) | refusals(401, 403, 404, 409, 413, 422, 503),
)
async def rollback(
    services: Use, caller: Editor, order: Annotated[Rollback, Body(examples=[examples.ROLLBACK])]
) -> Approved:
    """At once, without approval: it was approved when it was published."""
    number = await services.publishing.rollback(order.to, actor(caller), order.note, services.clock.now())
    return Approved(number=number, active=True)


async def propose(services: Services, author: str, proposal: RuleProposal) -> Proposed:
    """Check the changed files and enter them as a release. Raises BadRule, BadPolicy, Conflict."""
    head = await _head(services)
    if proposal.base != head.number:  # found before the second or two that trying the rules takes
        raise Conflict(
            f"these files were edited from release {proposal.base}, but release {head.number} is in force",
            path="base",
            hint="read /v1/rules/files, and make the change again",
        )
    old = await services.publishing.files(head.number)
    async with _read(services, _changed(old, proposal)) as pack:
        return await services.publishing.publish(
            pack,
            base=proposal.base,
            author=author,
            via="api",
            note=proposal.note,
            now=services.clock.now(),
        )


def _changed(old: dict[str, str], change: RuleChange) -> dict[str, str]:
    merged = {**old, **change.files}
    # One text whatever editor sent it, as where files are read: the version is a hash of it.
    return {n: text.removeprefix("\ufeff").replace("\r\n", "\n") for n, text in merged.items() if text is not None}


@asynccontextmanager
async def _read(services: Services, files: dict[str, str]) -> AsyncIterator[Pack]:
    """The files checked, off the event loop: rules are tried in a process of their own, which takes a second or two.

    Only so many at a time, for each may use a core and a lot of memory. Raises BadRule, BadPolicy.
    """
    async with services.trials:
        pack = await asyncio.to_thread(pack_of, files, features_in(services.settings.base_currency))
    try:
        yield pack
    finally:
        pack.close()
