"""Who may ask: the token, the names of this machine, and what a browser may do with the answers. Plain ASGI."""

from collections.abc import Sequence
from dataclasses import dataclass
from hmac import compare_digest

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
OPEN_PATHS = ("/", "/health")


@dataclass(frozen=True)
class Rules:
    """token   asked for on every route but the page and /health; None = none
    hosts   names under which this service answers; None = any
    """

    token: str | None = None
    hosts: Sequence[str] | None = None

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that is refused."""
        headers = Headers(scope=scope)
        name = host_name(headers.get("host", ""))
        if self.hosts is not None and name not in self.hosts:
            return 421, f"this service does not answer to the host name '{name[:80]}'. Start it with --allow-host NAME."
        if scope["method"] not in ("GET", "HEAD") and is_foreign(headers):
            return 403, "a page of another site sent this. Use the page of this service, or a program."
        path = scope["path"]
        if self.token is not None and path not in OPEN_PATHS and not path.startswith("/static/") and not self._knows(headers):
            return 401, "this service needs its token: send the header 'Authorization: Bearer TOKEN'."
        return None

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and compare_digest(given.strip().encode(), (self.token or "").encode())


class Guard:
    """Refuses what the rules forbid and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self.rules.refusal(scope)
        if refusal is None:
            return await self.app(scope, receive, send_guarded)
        status, sentence = refusal
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        return await JSONResponse({"detail": sentence}, status, headers)(scope, receive, send_guarded)


def is_foreign(headers: Headers) -> bool:
    """Whether a page of another site sent this. Browsers tell Sec-Fetch-Site on HTTPS and loopback only, Origin everywhere."""
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower()


def host_name(header: str) -> str:
    """The name in a Host header, without its port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower()
