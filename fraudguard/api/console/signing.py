"""The sign-in page: a name, a password, and a one-time code where the account asks for one; or a provider's word."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from fraudguard.api.console.readers import Reading
from fraudguard.api.console.rendering import SIGN_IN, page, reader_of
from fraudguard.api.console.sending import form_of
from fraudguard.api.services import Services, Use
from fraudguard.api.sessions import sign_in, sign_out
from fraudguard.errors import BadSignIn

router = APIRouter()

HOME: Final = "/console/queue"
_FIELDS_MAX: Final = 512


@router.get("/sign-in")
async def show(request: Request, services: Use, next: Annotated[str, Query(max_length=2_000)] = HOME) -> Response:
    """The form."""
    return form(request, services, inside(next))


@router.post("/sign-in")
async def enter(request: Request, services: Use) -> Response:
    """On to where the person wanted to go; else the form again, which says no more than that it was not right."""
    fields = await form_of(request)
    name, password, code = (fields.get(field, "")[:_FIELDS_MAX] for field in ("name", "password", "code"))
    to = inside(fields.get("next", HOME))
    response = RedirectResponse(to, 303)
    try:
        await sign_in(services, request, response, name.strip(), password, code.strip() or None)
    except BadSignIn as error:
        return form(request, services, to, 401, name=name, problem=error.code)
    return response


@router.post("/sign-out")
async def leave(request: Request, services: Use, _: Reading) -> Response:
    """End the session."""
    response = Response(status_code=204, headers={"HX-Redirect": SIGN_IN})
    await sign_out(services, request, response)
    return response


def form(
    request: Request, services: Services, to: str, status: int = 200, *, name: str = "", problem: str = ""
) -> Response:
    """The form, on the way to `to`. problem: the code of what went wrong, which has words of its own."""
    known = services.provider
    values = {"next": to, "name": name, "problem": problem, "provider": known}
    return page("sign_in.html", reader_of(request, None), "everywhere", status, **values)


def inside(to: str) -> str:
    """An address of the console; anything else leads to the queue, so that no link can send people elsewhere."""
    plain = to.startswith("/console/") and "\\" not in to and "//" not in to and to.isprintable()
    return to if plain and not to.startswith(SIGN_IN) else HOME
