"""Authenticate callers by API keys and JSON Web Tokens.

`authenticate` blocks where it asks DynamoDB or the issuer; `cached` answers from memory and never blocks, so an event
loop calls `authenticate` in a thread only when `cached` returns None. What a caller may do is only carried here, as
`Principal`; the services decide by it.
"""

import hashlib
import json
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import jwt

from headwater.clock import Clock
from headwater.config import GatewaySettings
from headwater.errors import UsageError
from headwater.lease import PASSING
from headwater.web.keys import ALL_CONTRACTS, ANY_ID, ApiKey, KeyStore, matches, parse_key
from headwater.web.problems import Problem

__all__ = ["Authenticator", "JwtVerifier", "Principal", "credential", "fetch_json"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures with public keys only: a token that says HS256 or none is refused."""
_REMEMBERED = 10_000
_ASK_AGAIN_MS = 5_000
"""Between two questions about a key while the table does not answer."""
_WHILE_ASKED_MS = 10_000
"""Longest time that one request asks for a key; the others go on meanwhile with what is known of it."""
_LEEWAY_SECONDS = 30
_REFRESH_SECONDS = 300
_RETRY_SECONDS = 10
_MAX_JWKS = 1 << 20
_LAST_SECOND = 253_402_300_799
"""Last second of the year 9999; a later `exp` is no time but a mistake, or an attempt to overflow a conversion."""


@dataclass(frozen=True)
class Principal:
    """Hold who a caller is and what it may do. The id goes into the identity of events, so it never changes."""

    id: str
    contracts: frozenset[str]
    events_per_second: float = 0
    burst: int = 0
    events_per_day: int = 0
    id_prefixes: frozenset[str] = frozenset()
    """Prefixes of the ids that it may write, of contracts whose events have ids of their own; * is any id."""

    def allows(self, scope: str) -> bool:
        """Say whether the caller may use a contract, or a service such as `views` or `console`."""
        return ALL_CONTRACTS in self.contracts or scope in self.contracts


ANONYMOUS = Principal("anonymous", frozenset({ALL_CONTRACTS}), id_prefixes=frozenset({ANY_ID}))
"""Everybody, where no credentials are needed: one caller, who may write any id."""


def credential(headers: Mapping[str, str]) -> str:
    """Return the key or token of a request: `Authorization: Bearer …` or `X-Api-Key: …`; Problem 401 without one.

    >>> credential({"authorization": "Bearer abc"})
    'abc'
    """
    if "x-api-key" in headers:
        return headers["x-api-key"].strip()
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not value.strip():
        raise unauthorized("send an API key or a token: Authorization: Bearer …")
    return value.strip()


def unauthorized(detail: str) -> Problem:
    """Return a 401 with the header that tells clients how to authenticate."""
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": 'Bearer realm="headwater"'})


def fetch_json(url: str) -> dict[str, Any]:
    """Fetch a JSON document over HTTP; OSError or ValueError when there is none."""
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"{url} is no http(s) URL")
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.loads(answer.read(_MAX_JWKS))
    return found


class JwtVerifier:
    """Check tokens of one OIDC issuer by PyJWT, against the issuer's published keys.

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
        """Return whose token it is and when it expires (epoch ms); Problem 401 for a bad one, 503 without keys."""
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
        # beside PyJWT's own errors those of claims that it converts: an `iat` of 1e400 is an OverflowError
        except (jwt.PyJWTError, ArithmeticError, ValueError, TypeError, RecursionError) as error:
            raise unauthorized(f"the token is not valid: {str(error)[:200]}") from None
        expires, not_before = _seconds(claims["exp"]), _seconds(claims.get("nbf", 0))
        now = self._clock.now_ms() / 1000
        if now > expires + _LEEWAY_SECONDS or now < not_before - _LEEWAY_SECONDS:
            raise unauthorized("the token has expired" if now > expires else "the token is not valid yet")
        who = hashlib.sha256(f"{claims['iss']}\0{claims['sub']}".encode()).hexdigest()[:24]
        contracts = _names(claims.get(self._settings.jwt_claim))
        prefixes = _names(claims.get(self._settings.jwt_id_prefix_claim))
        return Principal(f"jwt-{who}", contracts, id_prefixes=prefixes), int(expires * 1000)

    def _key(self, kid: str) -> jwt.PyJWK:
        with self._lock:
            now = self._clock.now_ms()
            old = now - self._fetched_ms > _REFRESH_SECONDS * 1000
            if (old or kid not in self._keys) and now - self._tried_ms >= _RETRY_SECONDS * 1000:
                self._refresh(now)
            if not self._keys:
                raise Problem.retryable(503, "not-ready", "the token issuer does not give its keys", _RETRY_SECONDS)
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
            return  # the keys that are known stay good
        self._keys = {str(key.key_id): key for key in found if key.key_type != "oct"}
        self._fetched_ms = now


def _names(claim: Any) -> frozenset[str]:
    """Return the names in a claim: a list of them, or one text with spaces between them."""
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else ()
    # an empty text would be a prefix of every id
    return frozenset(str(name) for name in names if str(name))


def _seconds(value: Any) -> float:
    # comparisons of an int of any size with a float do not overflow, conversions do; NaN fails both
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        raise unauthorized("the token is not valid: its times are no numbers of seconds up to the year 9999")
    return float(value)


@dataclass(frozen=True)
class _Lookup:
    """Hold the answer of the table: a key or None, when it came, and until when it is not asked again (epoch ms)."""

    key: ApiKey | None
    at_ms: int
    until_ms: int


_NEVER = _Lookup(None, 0, 0)


class Authenticator:
    """Authenticate callers, believing a key that was looked up, or its absence, for `key_seconds`. Thread-safe.

    While the table does not answer, a key that was good is believed for `key_grace_seconds` since it was looked up, and
    asked for again every few seconds: an outage of DynamoDB stops no caller that is known.
    """

    def __init__(
        self, settings: GatewaySettings, store: KeyStore | None, verifier: JwtVerifier | None, clock: Clock
    ) -> None:
        self._store, self._verifier, self._clock = store, verifier, clock
        self._ms = round(settings.key_seconds * 1000)
        self._grace_ms = round(settings.key_grace_seconds * 1000)
        self._keys: OrderedDict[str, _Lookup] = OrderedDict()
        self._tokens: OrderedDict[str, tuple[int, Principal]] = OrderedDict()
        self._lock = Lock()

    @property
    def is_open(self) -> bool:
        """Say whether everybody may write."""
        return self._store is None and self._verifier is None

    def cached(self, text: str) -> Principal | None:
        """Return the caller, None when it has to be looked up; Problem 401 for a known bad key. Never blocks."""
        parsed = parse_key(text)
        with self._lock:
            if parsed is None:
                until, who = self._tokens.get(hashlib.sha256(text.encode()).hexdigest(), (0, None))
                return who if self._clock.now_ms() < until else None
            found = self._keys.get(parsed[0], _NEVER)
        return _granted(found.key, parsed[1]) if self._clock.now_ms() < found.until_ms else None

    def authenticate(self, text: str) -> Principal:
        """Look the caller up and return it; Problem 401 when the credentials are nobody's."""
        parsed = parse_key(text)
        if parsed is None:
            return self._token(text)
        if self._store is None:
            raise unauthorized("API keys are not taken here")
        now = self._clock.now_ms()
        known = self._believed(parsed[0], now)
        try:
            found = _Lookup(self._store.get(parsed[0]), now, now + self._ms)
        except PASSING:
            if known is None:
                raise
            # from the end of the wait on, which may have been longer than this
            found = replace(known, until_ms=self._clock.now_ms() + _ASK_AGAIN_MS)
        self._remember(self._keys, parsed[0], found)
        return _granted(found.key, parsed[1])

    def _believed(self, key_id: str, now: int) -> _Lookup | None:
        """Return a key that is believed without the table's answer, which others are then spared to wait for as well.

        One request asks: all others would wait with it for as long as the table does not answer.
        """
        with self._lock:
            found = self._keys.get(key_id, _NEVER)
            if found.key is None or now >= found.at_ms + self._grace_ms:
                return None
            self._keys[key_id] = replace(found, until_ms=now + _WHILE_ASKED_MS)
            return found

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
    return Principal(
        key.key_id, key.contracts, key.events_per_second, key.burst, key.events_per_day, id_prefixes=key.id_prefixes
    )
