"""Who is calling: API keys and JSON Web Tokens.

`authenticate` is blocking where it has to ask (DynamoDB, the issuer) and says from memory what it asked before; the
app calls it in a thread only when `known` has no answer.
"""

import hashlib
import json
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import jwt

from headwater.clock import Clock
from headwater.config import GatewaySettings
from headwater.errors import UsageError
from headwater.web.keys import ANY, ApiKey, KeyStore, matches, parse_key
from headwater.web.problems import Problem

__all__ = ["Authenticator", "JwtVerifier", "Principal", "credential", "fetch_json"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys only: a token that says HS256 or none is refused."""
_REMEMBERED = 10_000
_LEEWAY_SECONDS = 30
_REFRESH_SECONDS = 300
_RETRY_SECONDS = 10
_MAX_JWKS = 1 << 20


@dataclass(frozen=True)
class Principal:
    """Who may write what. Its id goes into the identity of events, so it never changes for one caller."""

    id: str
    contracts: frozenset[str]
    events_per_second: float = 0
    burst: int = 0
    events_per_day: int = 0

    def may(self, contract: str) -> bool:
        return ANY in self.contracts or contract in self.contracts


ANONYMOUS = Principal("anonymous", frozenset({ANY}))


def credential(headers: Mapping[str, str]) -> str:
    """The key or token of a request: `Authorization: Bearer …` or `X-Api-Key: …`; Problem 401 when there is none."""
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise unauthorized("send an API key or a token: Authorization: Bearer …")
    return value.strip()


def unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="headwater"'})


def fetch_json(url: str) -> dict[str, Any]:
    """A JSON document over HTTP; OSError or ValueError when there is none."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is no http(s) URL")
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read(_MAX_JWKS))
    return found


class JwtVerifier:
    """Tokens of one OIDC issuer, checked by PyJWT against the issuer's published keys.

    The keys are fetched again every five minutes, and at most every ten seconds for a key id that is not among them.
    """

    def __init__(
        self, settings: GatewaySettings, clock: Clock, fetch: Callable[[str], dict[str, Any]] = fetch_json
    ) -> None:
        if not settings.jwt_audience:
            raise UsageError("HEADWATER_GATEWAY_JWT_ISSUER needs HEADWATER_GATEWAY_JWT_AUDIENCE beside it")
        self._settings, self._clock, self._fetch = settings, clock, fetch
        self._lock = Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_ms = self._tried_ms = -(10**15)

    def principal(self, token: str) -> tuple[Principal, int]:
        """Whose token it is, and until when it holds (epoch ms); Problem 401 or 503."""
        try:
            key = self._key(str(jwt.get_unverified_header(token).get("kid", "")))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                issuer=self._settings.jwt_issuer,
                audience=self._settings.jwt_audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"], "verify_exp": False, "verify_nbf": False},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise unauthorized(f"the token is not valid: {str(error)[:200]}") from None
        expires, not_before = _seconds(claims["exp"]), _seconds(claims.get("nbf", 0))
        now = self._clock.now_ms() / 1000
        if now > expires + _LEEWAY_SECONDS or now < not_before - _LEEWAY_SECONDS:
            raise unauthorized("the token has expired" if now > expires else "the token is not valid yet")
        who = hashlib.sha256(f"{claims['iss']}\0{claims['sub']}".encode()).hexdigest()[:24]
        granted = claims.get(self._settings.jwt_claim, ())
        names = granted.split() if isinstance(granted, str) else granted if isinstance(granted, list) else ()
        return Principal(f"jwt-{who}", frozenset(map(str, names))), int(expires * 1000)

    def _key(self, kid: str) -> jwt.PyJWK:
        with self._lock:
            now = self._clock.now_ms()
            old = now - self._fetched_ms > _REFRESH_SECONDS * 1000
            if (old or kid not in self._keys) and now - self._tried_ms >= _RETRY_SECONDS * 1000:
                self._refresh(now)
            if not self._keys:
                raise Problem.later(503, "not-ready", "the token issuer's keys cannot be had", _RETRY_SECONDS)
            if kid not in self._keys:
                raise jwt.InvalidKeyError("its key is none of the issuer's")
            return self._keys[kid]

    def _refresh(self, now: int) -> None:
        self._tried_ms = now
        try:
            url = self._settings.jwt_jwks
            if not url:
                issuer = self._settings.jwt_issuer.rstrip("/")
                url = str(self._fetch(f"{issuer}/.well-known/openid-configuration")["jwks_uri"])
            found = jwt.PyJWKSet.from_dict(self._fetch(url)).keys
        except (OSError, ValueError, KeyError, jwt.PyJWTError):
            return  # those that are known go on being good
        self._keys = {str(key.key_id): key for key in found if key.key_type != "oct"}
        self._fetched_ms = now


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise unauthorized("the token is not valid: its times are no numbers")
    return float(value)


class Authenticator:
    """Keys looked up are believed for `key_seconds`, and so is it that there is no such key."""

    def __init__(
        self, settings: GatewaySettings, store: KeyStore | None, verifier: JwtVerifier | None, clock: Clock
    ) -> None:
        self._store, self._verifier, self._clock = store, verifier, clock
        self._ms = round(settings.key_seconds * 1000)
        self._keys: OrderedDict[str, tuple[int, ApiKey | None]] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[int, Principal]] = OrderedDict()
        self._lock = Lock()

    @property
    def open(self) -> bool:
        """Whether everybody may write."""
        return self._store is None and self._verifier is None

    def known(self, text: str) -> Principal | None:
        """Who it is, if memory knows; Problem 401 when it knows better. Never blocks."""
        parsed = parse_key(text)
        with self._lock:
            if parsed is None:
                until, who = self._tokens.get(hashlib.sha256(text.encode()).hexdigest(), (0, None))
                return who if self._clock.now_ms() < until else None
            until, key = self._keys.get(parsed[0], (0, None))
        return _granted(key, parsed[1]) if self._clock.now_ms() < until else None

    def authenticate(self, text: str) -> Principal:
        """Who it is, after asking; Problem 401 when it is nobody."""
        parsed = parse_key(text)
        if parsed is None:
            return self._token(text)
        if self._store is None:
            raise unauthorized("API keys are not taken here")
        key = self._store.get(parsed[0])
        self._remember(self._keys, parsed[0], (self._clock.now_ms() + self._ms, key))
        return _granted(key, parsed[1])

    def _token(self, text: str) -> Principal:
        if self._verifier is None or text.count(".") != 2:
            raise unauthorized("the credentials are neither an API key nor a token")
        who, expires_ms = self._verifier.principal(text)
        until = min(expires_ms, self._clock.now_ms() + self._ms)
        self._remember(self._tokens, hashlib.sha256(text.encode()).hexdigest(), (until, who))
        return who

    def _remember(self, memory: "OrderedDict[str, Any]", name: str, value: Any) -> None:
        with self._lock:
            memory[name] = value
            memory.move_to_end(name)
            while len(memory) > _REMEMBERED:
                memory.popitem(last=False)


def _granted(key: ApiKey | None, secret: str) -> Principal:
    if not matches(key, secret) or key is None:
        raise unauthorized("the API key is unknown or revoked")
    return Principal(key.key_id, key.contracts, key.events_per_second, key.burst, key.events_per_day)
