"""One page or fragment: the templates, what every page knows of its reader, and how errors look.

Knows Jinja2, cookies and htmx's headers; knows nothing that a page is about.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from zoneinfo import ZoneInfo

from fastapi import Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from fraudguard.api.console import keys, shown
from fraudguard.api.console.why import RuleShelf
from fraudguard.api.console.words import Words, choose
from fraudguard.api.problems import ProblemError
from fraudguard.api.services import Services
from fraudguard.decisions.keys import Principal
from fraudguard.domain import Role
from fraudguard.errors import Conflict

LANGUAGE_COOKIE: Final = "fraudguard_language"
THEME_COOKIE: Final = "fraudguard_theme"
WORKERS: Final = frozenset({Role.ANALYST, Role.LEAD, Role.ADMIN})  # who may change a case
EDITORS: Final = frozenset({Role.RULE_EDITOR, Role.ADMIN})  # who may change rules
LEADS: Final = frozenset({Role.LEAD, Role.ADMIN})  # who may hand out, merge, review, and do the same to many
# What an error page says, by a problem's code or else its status: keys `error.<kind>` of the catalogue.
_KINDS: Final[Mapping[str | int, str]] = {
    "text_not_kept": "not_kept",
    "refused": "refused",  # its own words say why
    403: "forbidden",
    404: "missing",
    409: "overtaken",
    412: "overtaken",
    503: "unavailable",
}
SIGN_IN: Final = "/console/sign-in"

_TEMPLATES: Final = Environment(
    loader=PackageLoader("fraudguard.api.console"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Reader:
    """Who looks at a page, and how they want it."""

    known: Principal | None
    words: Words
    theme: str
    now: datetime
    zone: ZoneInfo
    currency: str
    shelf: RuleShelf

    @property
    def works(self) -> bool:
        """Whether they may change cases."""
        return self.known is not None and self.known.role in WORKERS

    @property
    def edits(self) -> bool:
        """Whether they may change rules."""
        return self.known is not None and self.known.role in EDITORS

    @property
    def lists(self) -> bool:
        """Whether they may change watch lists."""
        return self.works or self.edits

    @property
    def leads(self) -> bool:
        """Whether they may also do what is reserved for leads."""
        return self.known is not None and self.known.role in LEADS

    @property
    def administers(self) -> bool:
        """Whether they may also change what runs: the model, dead letters."""
        return self.known is not None and self.known.role is Role.ADMIN

    @property
    def of_house(self) -> bool:
        """Whether they are no tenant's people: rules, lists, models and operations are the house's."""
        return self.known is not None and not self.known.tenant

    @property
    def principal(self) -> Principal:
        """Who they are, on pages that serve nobody else."""
        if self.known is None:
            raise ProblemError(401, "no_session", "nobody is signed in")
        return self.known


def reader_of(request: Request, principal: Principal | None) -> Reader:
    """The reader that the request's cookies and headers describe."""
    services: Services = request.app.state.services
    theme = request.cookies.get(THEME_COOKIE, "")
    return Reader(
        known=principal,
        words=Words(choose(request.cookies.get(LANGUAGE_COOKIE), request.headers.get("accept-language", ""))),
        theme=theme if theme in {"light", "dark"} else "",
        now=services.clock.now(),
        zone=ZoneInfo(services.settings.time_zone),
        currency=services.settings.base_currency,
        shelf=request.app.state.rule_shelf,
    )


def render(template: str, reader: Reader, place: keys.Place = "everywhere", **values: Any) -> str:
    """A template's HTML. place: whose keys the page has."""
    helpers: Mapping[str, Any] = {
        "reader": reader,
        "t": reader.words,
        "keys": keys.keys_of(place, leads=reader.leads),
        "place": place,
        "money": shown.money,
        "risk": shown.risk,
        "change": shown.change,
        "short": shown.short,
        "iso": shown.iso,
        "value": lambda found, feature: shown.value(found, feature, reader.words),
        "time": partial(shown.time, now=reader.now, zone=reader.zone, words=reader.words),
        "exact": partial(shown.exact, zone=reader.zone),
        "age": lambda at: shown.age(reader.now - at, reader.words),
        "left": lambda at: shown.age(at - reader.now, reader.words),
    }
    return _TEMPLATES.get_template(template).render(**helpers, **values)


def page(template: str, reader: Reader, place: keys.Place, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page, or what `template` makes of a fragment."""
    return HTMLResponse(render(template, reader, place, **values), status)


def is_fragment(request: Request) -> bool:
    """Whether htmx asks for a part of a page that is there already."""
    return "hx-request" in request.headers


def refused(request: Request, error: ProblemError) -> Response:
    """A problem as a page in the reader's language; of a fragment, one line for the page's notice.

    Nobody signed in is sent to the sign-in page and comes back afterwards.
    """
    status, code = error.problem.status, error.problem.code
    if status == 401:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        to = str(request.url.replace(scheme="", netloc="", path=SIGN_IN, query="").include_query_params(next=back))
        return (
            Response(status_code=401, headers={"HX-Redirect": to})
            if is_fragment(request)
            else RedirectResponse(to, 303)
        )
    reader = reader_of(request, getattr(request.state, "principal", None))
    kind = _KINDS.get(code) or _KINDS.get(status) or ("refused" if status < 500 else "broken")
    template = "notice.html" if is_fragment(request) else "refused.html"
    html = render(template, reader, kind=kind, problem=error.problem, code=code)
    return HTMLResponse(html, status, error.headers)


@contextmanager
def refusing() -> Iterator[None]:
    """What contradicts what stands is shown in its own words, not as somebody's having been first."""
    try:
        yield
    except Conflict as error:
        raise ProblemError(409, "refused", str(error)) from error


def part(request: Request, whole: str, inner: str, rows: str) -> str:
    """Which template answers: more rows, the list alone, or the whole page (also when a browser goes back)."""
    if not is_fragment(request) or "hx-history-restore-request" in request.headers:
        return whole
    return rows if "hx-rows" in request.headers else inner
