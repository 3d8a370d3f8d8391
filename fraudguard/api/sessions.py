"""Signing in and out, who one is, and one's own password. The console's sign-in page uses the same functions."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Request, Response

from fraudguard.api import examples
from fraudguard.api.auth import COOKIE, Serves
from fraudguard.api.openapi import refusals, shown
from fraudguard.api.problems import ProblemError
from fraudguard.api.services import Services, Use
from fraudguard.api.session_schemas import NewPassword, SignIn, Who
from fraudguard.decisions.keys import Principal
from fraudguard.decisions.sessions import Opened
from fraudguard.domain import Role

router = APIRouter(tags=["session"])

ANYBODY = Serves(*Role)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_FROM_HERE = frozenset({"same-origin", "none"})  # `none`: typed, or no browser's page


async def sign_in(
    services: Services, request: Request, response: Response, name: str, password: str, code: str | None
) -> Principal:
    """Begin a session and set its cookie on `response`; who signed in. 403 for another site's page, 429 after many.

    Raises BadSignIn, BadSettings where codes are asked for and cannot be checked.
    """
    if request.headers.get("sec-fetch-site", "none") not in _FROM_HERE:
        raise ProblemError(403, "other_site", "another site's page cannot sign anybody in", hint="open this site")
    await services.rates.sign_in(request.client.host if request.client else "")
    opened = await services.accounts.sign_in(name, password, code, services.clock.now())
    give(services, request, response, opened)
    return opened.principal


def give(services: Services, request: Request, response: Response, opened: Opened) -> None:
    """The session's cookie."""
    max_age = services.settings.session_max_s
    response.set_cookie(
        COOKIE, opened.token, max_age=max_age, httponly=True, samesite="strict", secure=is_secure(request)
    )


def is_secure(request: Request) -> bool:
    """Whether cookies are for HTTPS alone: everywhere but on loopback, where no browser sends such over plain HTTP."""
    return request.url.hostname not in _LOOPBACK


async def sign_out(services: Services, request: Request, response: Response) -> None:
    """End the session of this request's cookie, if there is one, and take the cookie away."""
    token = request.cookies.get(COOKIE)
    if token:
        await services.repository.sessions.close(token, services.clock.now())
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=is_secure(request))


@router.post(
    "/v1/session",
    status_code=201,
    summary="Sign in",
    responses=shown(examples.WHO, 201) | refusals(401, 403, 413, 422, 503),
)
async def begin(
    services: Use, request: Request, response: Response, who: Annotated[SignIn, Body(examples=[examples.SIGN_IN])]
) -> Who:
    """Sets the session's cookie. 401 `bad_sign_in`, or `code_needed` when the password is right and a code is due."""
    code = who.code.get_secret_value() if who.code else None
    return _who(await sign_in(services, request, response, who.name, who.password.get_secret_value(), code))


@router.get("/v1/session", summary="Who calls", responses=shown(examples.WHO) | refusals(401, 403, 503))
async def current(caller: Annotated[Principal, Depends(ANYBODY)]) -> Who:
    """By key or by cookie; with the token that changes by cookie need."""
    return _who(caller)


@router.delete(
    "/v1/session",
    status_code=204,
    summary="Sign out",
    responses=refusals(401, 403, 503),
    dependencies=[Depends(ANYBODY)],
)
async def end(services: Use, request: Request) -> Response:
    """Ends the session of the cookie; a key has none, and stays as it is."""
    response = Response(status_code=204)
    await sign_out(services, request, response)
    return response


@router.put(
    "/v1/session/password",
    status_code=204,
    summary="Change one's own password",
    responses=refusals(401, 403, 413, 422, 503),
)
async def change_password(
    services: Use,
    caller: Annotated[Principal, Depends(ANYBODY)],
    change: Annotated[NewPassword, Body(examples=[examples.NEW_PASSWORD])],
) -> Response:
    """Ends all one's sessions: sign in again with the new one."""
    if caller.csrf is None:
        raise ProblemError(403, "no_person", "a key has no password", hint="sign in first: POST /v1/session")
    await services.accounts.change_password(
        caller.name, change.old.get_secret_value(), change.new.get_secret_value(), services.clock.now()
    )
    return Response(status_code=204)


def _who(caller: Principal) -> Who:
    return Who(name=caller.name, role=caller.role, csrf_token=caller.csrf, tenant=caller.tenant)
