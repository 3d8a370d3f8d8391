"""The OpenID provider: where to send a browser, and whom the code stands for that it comes back with.

Authorization code with PKCE: OpenID Connect Core 1.0, 3.1; RFC 7636. Knows the provider's HTTP and its tokens; stores
nothing, and of accounts knows what the settings say: which claim is the name, and which claims give which role.
"""

import base64
import hashlib
import hmac
import logging
from typing import Annotated, Any, Final, Self
from urllib.parse import quote_plus, urlencode

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry, decode
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from fraudguard.clock import Clock
from fraudguard.config import Settings
from fraudguard.decisions.vouched import Identity
from fraudguard.domain import Role
from fraudguard.errors import BadSettings, BadSignIn, ProviderUnavailable

log = logging.getLogger(__name__)

RETURN_PATH: Final = "/console/sign-in/return"
TIMEOUT_S: Final = 5.0
CACHED_S: Final = 600.0  # what the provider says of itself; new keys are also looked for when a signature does not fit
LEEWAY_S: Final = 60  # by which clocks may differ
SUBJECT_CHARACTERS_MAX: Final = 255  # Core, 2
# With a key that only the provider has; what it announces beside these (`none`, HMAC) is not taken.
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _checked(url: str) -> str:
    """https, or http to this machine. Raises ValueError."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError("is not a URL") from error
    plain_here = parts.scheme == "http" and parts.host in _LOOPBACK
    if not parts.host or parts.userinfo or not (parts.scheme == "https" or plain_here):
        raise ValueError("must begin with https://, or with http:// and a loopback host")
    return url


class About(BaseModel):
    """What the provider says of itself (OpenID Connect Discovery 1.0, 3)."""

    model_config = ConfigDict(frozen=True)

    issuer: str
    authorization_endpoint: Annotated[str, AfterValidator(_checked)]
    token_endpoint: Annotated[str, AfterValidator(_checked)]
    jwks_uri: Annotated[str, AfterValidator(_checked)]
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)


def state_of(secret: str) -> str:
    """What comes back beside the code; it tells nothing of the browser's secret."""
    return _derived(secret, b"state")


def _derived(secret: str, what: bytes) -> str:
    return hmac.digest(secret.encode(), what, "sha256").hex()


class Provider:
    """Methods raise ProviderUnavailable when it does not answer as the protocol wants."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        """Raises BadSettings where one is missing or is no address."""
        self.issuer, self.name = _address(settings.oidc_issuer, "oidc_issuer"), settings.oidc_name
        self.public_url = _address(settings.public_url, "public_url").rstrip("/")
        if not settings.oidc_client_id:
            raise BadSettings("is missing", path="oidc_client_id", hint="the provider gave you one, for this client")
        if not settings.oidc_roles:
            hint = 'without it nobody gets in: FRAUDGUARD_OIDC_ROLES=\'{"fraud-analysts": "analyst"}\''
            raise BadSettings("is missing", path="oidc_roles", hint=hint)
        self._client, self._secret = settings.oidc_client_id, settings.oidc_client_secret
        self._settings, self._clock = settings, clock
        self._known: tuple[float, About] | None = None
        self._keys: tuple[float, KeySet] | None = None

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> Self | None:
        """None where no provider is set. Raises BadSettings."""
        return None if settings.oidc_issuer is None else cls(settings, clock)

    async def about(self) -> About:
        """What it says of itself, at most CACHED_S old."""
        now = self._clock.monotonic()
        if self._known is None or now >= self._known[0]:
            document = await _get(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
            try:
                about = About.model_validate(document)
            except ValidationError as error:
                raise ProviderUnavailable(f"{self.issuer} describes itself wrongly: {error}") from error
            if about.issuer != self.issuer:
                raise ProviderUnavailable(
                    f"{self.issuer} calls itself {about.issuer}: set FRAUDGUARD_OIDC_ISSUER to it"
                )
            self._known = now + CACHED_S, about
        return self._known[1]

    async def address(self, secret: str) -> str:
        """Where to send the browser that holds this secret."""
        about = await self.about()
        challenge = hashlib.sha256(_derived(secret, b"verifier").encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self.public_url + RETURN_PATH,
            "scope": self._settings.oidc_scopes,
            "state": state_of(secret),
            "nonce": _derived(secret, b"nonce"),
            "code_challenge": base64.urlsafe_b64encode(challenge).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in about.authorization_endpoint else "?"
        return about.authorization_endpoint + joint + urlencode(asked)

    async def redeem(self, code: str, secret: str) -> Identity:
        """Whom the code stands for that came back to the browser with this secret.

        Raises BadSignIn: `provider_refused` for a bad code, `bad_token`, `no_name`, `no_role`.
        """
        about = await self.about()
        token = await self._token(about, code, secret)
        claims = await self._claims(about, token, _derived(secret, b"nonce"))
        return self._identity(claims)

    async def _token(self, about: About, code: str, secret: str) -> str:
        """The ID token that the code is worth."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.public_url + RETURN_PATH,
            "code_verifier": _derived(secret, b"verifier"),
        }
        auth = None
        password = None if self._secret is None else self._secret.get_secret_value()
        if password is not None and "client_secret_basic" in about.token_endpoint_auth_methods_supported:
            auth = httpx.BasicAuth(quote_plus(self._client), quote_plus(password))  # RFC 6749, 2.3.1
        else:
            form |= {"client_id": self._client} | ({} if password is None else {"client_secret": password})
        answer = await _ask("POST", about.token_endpoint, data=form, auth=auth)
        if answer.is_server_error:
            raise ProviderUnavailable(f"{about.token_endpoint} answered {answer.status_code}")
        try:
            token = answer.json().get("id_token") if answer.is_success else None
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str):
            log.warning("%s gave no ID token for a code: %d", about.token_endpoint, answer.status_code)
            raise BadSignIn("the provider took the code for a bad one", hint="sign in again", code="provider_refused")
        return token

    async def _claims(self, about: About, token: str, nonce: str) -> dict[str, Any]:
        """What the token says, once all of it is proved. Its keys are fetched again where they do not fit."""
        allowed = [name for name in about.id_token_signing_alg_values_supported if name in ALGORITHMS]
        registry = JWSRegistry(algorithms=allowed, strict_check_header=False)
        keys, fresh = await self._key_set(about)
        try:
            try:
                claims = decode(token, keys, registry=registry).claims
            except (JoseError, ValueError):
                if fresh:
                    raise
                self._keys = None
                keys, _ = await self._key_set(about)
                claims = decode(token, keys, registry=registry).claims
            self._check(claims, nonce)
        except (JoseError, ValueError) as error:
            log.warning("an ID token of %s is refused: %s", self.issuer, error)
            hint = "the operator finds the reason in the log"
            raise BadSignIn("what the provider says cannot be trusted", hint=hint, code="bad_token") from error
        return claims

    def _check(self, claims: dict[str, Any], nonce: str) -> None:
        """Core, 3.1.3.7. Raises JoseError, ValueError."""
        JWTClaimsRegistry(
            now=int(self._clock.now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self.issuer},
            aud={"essential": True, "value": self._client},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True, "value": nonce},
        ).validate(claims)
        party = claims.get("azp", self._client if isinstance(claims["aud"], str) or len(claims["aud"]) == 1 else None)
        if party != self._client:
            raise ValueError("it was issued to another client")

    async def _key_set(self, about: About) -> tuple[KeySet, bool]:
        """Its keys, and whether they were fetched just now."""
        now = self._clock.monotonic()
        if self._keys is not None and now < self._keys[0]:
            return self._keys[1], False
        document = await _get(about.jwks_uri)
        try:
            keys = KeySet.import_key_set(document)
        except (JoseError, KeyError, TypeError, ValueError) as error:
            raise ProviderUnavailable(f"{about.jwks_uri} holds no keys that can be read") from error
        self._keys = now + CACHED_S, keys
        return keys, True

    def _identity(self, claims: dict[str, Any]) -> Identity:
        subject, name = claims["sub"], claims.get(self._settings.oidc_name_claim)
        if not isinstance(subject, str) or len(subject) > SUBJECT_CHARACTERS_MAX or not isinstance(name, str):
            log.warning("an ID token of %s has no %r", self.issuer, self._settings.oidc_name_claim)
            raise BadSignIn("the provider did not say your name", hint="ask its operator", code="no_name")
        has = _values(claims, self._settings.oidc_role_claim)
        for value, role in self._settings.oidc_roles.items():
            if value in has:
                known, _, tenant = role.partition("@")
                return Identity(self.issuer, subject, name.lower(), Role(known), tenant)
        hint = f"ask for one of these: {', '.join(self._settings.oidc_roles)}"
        raise BadSignIn("the provider gives you no role here", hint=hint, code="no_role")


def _values(claims: dict[str, Any], claim: str) -> list[object]:
    """The claim of this name; else, of `a.b`, what `b` is in `a`."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, dict) else None
    return found if isinstance(found, list) else [found]


def _address(url: str | None, setting: str) -> str:
    try:
        return _checked(url or "")
    except ValueError as error:
        raise BadSettings(str(error), path=setting, hint="https://fraud.bank.example") from error


async def _ask(method: str, url: str, **options: Any) -> httpx.Response:
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
            return await client.request(method, url, **options)
    except httpx.HTTPError as error:
        raise ProviderUnavailable(f"{url}: {type(error).__name__}") from error


async def _get(url: str) -> Any:
    answer = await _ask("GET", url)
    try:
        return answer.raise_for_status().json()
    except (httpx.HTTPStatusError, ValueError) as error:
        raise ProviderUnavailable(f"{url} answered {answer.status_code}") from error
