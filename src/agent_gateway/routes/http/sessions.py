"""Browsers that use the playground without a key: a link that works once, and the cookie that it sets.

The cookie holds an API key that was made for this one browser, so everything that is true of keys is true of
it: it opens one app, is counted, is listed, expires and can be revoked.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from itsdangerous import BadSignature, URLSafeSerializer, URLSafeTimedSerializer

from agent_gateway.domain.ids import KeyId, canonical_uuid, new_id
from agent_gateway.errors import Unauthorized

LINK_SALT: Final = "sign-in-link"
COOKIE_SALT: Final = "session-cookie"
COOKIE: Final = "agent_gateway_session"
LINK_SECONDS: Final = 24 * 3600
SESSION_SECONDS: Final = 30 * 24 * 3600
PORT: Final = re.compile(r":(\d{1,5})$")
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class SignInLinks:
    """Makes the links that `serve` prints, and reads them back."""

    def __init__(self, secret: bytes) -> None:
        self._serializer = URLSafeTimedSerializer(secret, salt=LINK_SALT)

    def make(self, base_url: str) -> str:
        """A link to the playground of the gateway at this URL."""
        return f"{base_url}/sign-in?token={self._serializer.dumps(new_id())}"

    def read(self, token: str, now: float) -> KeyId | None:
        """The id of the key that this token makes, once; None when it is not ours or has expired.

        `now` is in seconds since 1970, by the clock that all processes share.
        """
        try:
            key_id, signed_at = self._serializer.loads(token, return_timestamp=True)
        except BadSignature:
            return None
        if signed_at.timestamp() + LINK_SECONDS < now:
            return None
        return KeyId(key_id) if canonical_uuid(key_id) else None


class Sessions:
    """The cookies of browsers that are signed in. `domain` is their Domain; empty: this host alone.

    Browsers send them to the folder of the gateway's URL only: what is below other paths gets none.
    """

    def __init__(self, secret: bytes, *, domain: str = "", public_url: str = "") -> None:
        self.links = SignInLinks(secret)
        self._serializer = URLSafeSerializer(secret, salt=COOKIE_SALT)
        self._domain = domain or None
        public = urlsplit(public_url)
        self._secure = public.scheme == "https"
        self._public_host = public.netloc

    def key_of(self, request: Request) -> str | None:
        """The API key in the cookie of a request; None without a cookie of ours.

        Raises Unauthorized when another site may have made the request.
        """
        signed = request.cookies.get(_name(request))
        if signed is None:
            return None
        try:
            key = self._serializer.loads(signed)
        except BadSignature:
            return None
        self._require_same_origin(request)
        return key if isinstance(key, str) else None

    def sign_in(self, request: Request, response: Response, key: str) -> None:
        """Set the cookie."""
        response.set_cookie(
            _name(request),
            self._serializer.dumps(key),
            max_age=SESSION_SECONDS,
            path=None,
            domain=self._domain,
            secure=self._secure or request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def sign_out(self, request: Request, response: Response) -> None:
        """Remove the cookie."""
        response.set_cookie(
            _name(request), max_age=0, path=None, domain=self._domain, httponly=True, samesite="strict"
        )

    def _require_same_origin(self, request: Request) -> None:
        """Refuse what a page of another origin may have sent in this browser's name.

        SameSite alone would let pages of other ports of this host through.
        """
        site = request.headers.get("sec-fetch-site")
        if site is not None:
            trusted = site in ("same-origin", "none")
        elif (origin := request.headers.get("origin")) is not None:
            # A proxy may have put another Host in place of the browser's.
            trusted = urlsplit(origin).netloc in (request.headers.get("host"), self._public_host or None)
        else:
            trusted = request.method in SAFE_METHODS
        if not trusted:
            raise Unauthorized("The session of the playground is for its own page: send an API key.")


def _name(request: Request) -> str:
    """The name of the cookie: browsers give those of one port to all other ports of a host, too."""
    port = PORT.search(request.headers.get("host", ""))
    return f"{COOKIE}_{port[1]}" if port else COOKIE
