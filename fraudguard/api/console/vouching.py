"""Signing in with an OpenID provider: the browser leaves for it, and comes back with a code.

What binds the two is a secret in a cookie of the browser's own: a code that came to another browser opens nothing here.
"""

import hmac
import logging
import secrets
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.console.rendering import SIGN_IN, page, reader_of
from fraudguard.api.console.signing import HOME, form, inside
from fraudguard.api.problems import ProblemError
from fraudguard.api.services import Services, Use
from fraudguard.api.sessions import give, is_secure
from fraudguard.decisions.vouched import SIGN_IN_LASTS
from fraudguard.errors import BadSignIn, ProviderUnavailable
from fraudguard.oidc import Provider, state_of

log = logging.getLogger(__name__)

router = APIRouter()

COOKIE: Final = "fraudguard_sign_in"
_STATUSES: Final = {"provider_down": 503, "stale": 400}  # of what is told; 403 for the others
Word = Annotated[str, Query(max_length=4_096)]


# By GET, for a form whose answer leads to another site would break the page's policy.
@router.get("/sign-in/provider")
async def leave(request: Request, services: Use, next: Annotated[str, Query(max_length=2_000)] = HOME) -> Response:
    """To the provider."""
    provider = _provider(services)
    await services.rates.sign_in(request.client.host if request.client else "")
    secret = secrets.token_urlsafe(32)
    try:
        to = await provider.address(secret)
    except ProviderUnavailable as error:
        log.warning("nobody can sign in with the provider now: %s", error)
        return form(request, services, inside(next), 503, problem="provider_down")
    await services.repository.vouched.begin(secret, inside(next), services.clock.now())
    response = RedirectResponse(to, 303)
    response.set_cookie(  # Lax: it must come along when the provider's page leads back here
        COOKIE,
        secret,
        max_age=int(SIGN_IN_LASTS.total_seconds()),
        path=SIGN_IN,
        httponly=True,
        samesite="lax",
        secure=is_secure(request),
    )
    return response


@router.get("/sign-in/return")
async def come_back(
    request: Request, services: Use, state: Word = "", code: Word = "", error: Word | None = None
) -> Response:
    """In, where the provider and the settings say so; else the form, which says why not."""
    provider, secret = _provider(services), request.cookies.get(COOKIE, "")
    to: str | None = None
    try:
        if secret and state.isascii() and hmac.compare_digest(state, state_of(secret)):
            to = await services.repository.vouched.take(secret, services.clock.now())
        if to is None:
            raise BadSignIn("this sign-in has run out, or was used", code="stale")
        if error is not None:
            log.info("the provider refused a sign-in: %.100r", error)
            raise BadSignIn("the provider refused", code="provider_refused")
        who = await provider.redeem(code, secret)
        opened = await services.repository.vouched.enter(who, services.clock.now())
    except BadSignIn as refusal:
        response = form(request, services, to or HOME, _STATUSES.get(refusal.code, 403), problem=refusal.code)
    except ProviderUnavailable as failure:
        log.warning("somebody could not sign in with the provider: %s", failure)
        response = form(request, services, to or HOME, 503, problem="provider_down")
    else:
        # A page that leads on by itself: after a redirect from the provider's site browsers would keep the session's
        # SameSite=Strict cookie to themselves.
        response = page("arrived.html", reader_of(request, None), "everywhere", next=to)
        give(services, request, response, opened)
    response.delete_cookie(COOKIE, path=SIGN_IN, httponly=True, samesite="lax", secure=is_secure(request))
    return response


def _provider(services: Services) -> Provider:
    if services.provider is None:
        raise ProblemError(404, "no_such_route", "nobody signs in with a provider here")
    return services.provider
