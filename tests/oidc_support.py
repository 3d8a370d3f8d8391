"""An OpenID provider that runs here, over HTTP: a real one, which can be told to say what it should not.

Beyond what the provider checks itself (client, secret, redirect, scope, single use of a code), this insists on PKCE.
"""

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import flask
import httpx
import werkzeug.serving
from joserfc import jwt
from joserfc.jwk import RSAKey
from oidc_provider_mock import User, app

from fraudguard.config import Settings
from fraudguard.oidc import RETURN_PATH

Change = Callable[[dict[str, Any]], None]


class IdProvider:
    """Its clients are registered, its people are known by `sub`.

    change: done to every ID token's claims before it is signed anew; signer: by another key than its own.
    """

    def __init__(self) -> None:
        self.app = app(require_client_registration=True, require_nonce=True)
        self.app.debug = False
        self.change: Change | None = None
        self.signer: RSAKey | None = None
        self.down = False
        self.asked: list[str] = []
        self._storage: Any = None
        self._challenges: dict[str, str] = {}
        self.app.before_request(self._before)
        self.app.after_request(self._after)
        self.url = ""

    def knows(self, sub: str, **claims: object) -> None:
        """A person of its own, with these claims from now on."""
        self._storage.store_user(User(sub=sub, claims=claims))

    def rotate(self) -> None:
        """A new key; the old one is gone."""
        self._storage.jwk = type(self._storage.jwk).generate_key(is_private=True)

    def client(self, public_url: str) -> tuple[str, str]:
        """Register one; its id and secret."""
        wanted = {"redirect_uris": [public_url + RETURN_PATH], "scope": "openid profile email"}
        made = httpx.post(f"{self.url}/oauth2/clients", json=wanted).raise_for_status().json()
        return made["client_id"], made["client_secret"]

    def settings(self, settings: Settings, public_url: str, **roles: str) -> Settings:
        """With this provider, for a client of its own."""
        client_id, secret = self.client(public_url)
        more = {
            "oidc_issuer": self.url,
            "oidc_client_id": client_id,
            "oidc_client_secret": secret,
            "oidc_name": "Bank ID",
            "oidc_roles": roles,
            "public_url": public_url,
        }
        return Settings(**{**settings.model_dump(), **more})

    def _before(self) -> Any:
        self._storage = flask.g.oidc_provider_mock_storage
        self.asked.append(flask.request.path)
        if self.down:
            return flask.Response("away", 503)
        if flask.request.path == "/oauth2/token":
            form = flask.request.form
            made = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
            if self._challenges.get(form["code"]) != base64.urlsafe_b64encode(made).rstrip(b"=").decode():
                return flask.jsonify({"error": "invalid_grant"}), 400
        return None

    def _after(self, response: flask.Response) -> flask.Response:
        query = parse_qs(urlsplit(response.headers.get("Location", "")).query)
        if "code" in query and flask.request.args.get("code_challenge_method") == "S256":
            self._challenges[query["code"][0]] = flask.request.args["code_challenge"]
        if response.mimetype == "text/html":  # its page wants a style sheet from elsewhere
            response.set_data(re.sub(rb"https://[^\"]+", b"data:text/css,", response.get_data()))
        if "error" in query and "state" not in query:  # RFC 6749, 4.1.2.1 wants it, and this provider forgets it
            response.headers["Location"] += f"&state={flask.request.args['state']}"
        if flask.request.path == "/oauth2/token" and response.status_code == 200 and (self.change or self.signer):
            body = response.get_json()
            own = RSAKey.import_key(self._storage.jwk.as_dict(is_private=True))
            token = jwt.decode(body["id_token"], own)
            if self.change:
                self.change(token.claims)
            body["id_token"] = jwt.encode(token.header, token.claims, self.signer or own)
            response.set_data(flask.json.dumps(body))
        return response


@contextmanager
def provider() -> Iterator[IdProvider]:
    """A running one, at localhost: another site than 127.0.0.1, as browsers see it."""
    made = IdProvider()
    server = werkzeug.serving.make_server("localhost", 0, made.app, threaded=True)
    made.url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    httpx.get(made.url + "/jwks").raise_for_status()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()
