"""The demo's sample project: a small web shop in plain Python, with its own tests."""

from __future__ import annotations

from pathlib import Path

NAME = "shop"
FILES: dict[str, str] = {
    "README.md": """\
# shop

A small web shop: a WSGI application without dependencies. A module in `shop/routes/` is a group of routes and is found by itself.

    python3 -m unittest discover -s tests
""",
    ".codespar.yaml": "test: python3 -m unittest discover -s tests\n",
    ".gitignore": "__pycache__/\n",
    "shop/__init__.py": '"""A small web shop."""\n',
    "shop/http.py": '''\
"""Requests, responses and routes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    client: str = "127.0.0.1"

    def json(self):
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body or b"null")


@dataclass(frozen=True)
class Response:
    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response]
ROUTES: dict[tuple[str, str], Handler] = {}


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler."""

    def register(handler: Handler) -> Handler:
        ROUTES[method, path] = handler
        return handler

    return register
''',
    "shop/app.py": '''\
"""The application: middleware around the routes, and its WSGI face."""

import importlib
import json
import pkgutil

from shop import routes
from shop.http import ROUTES, Request, Response
from shop.middleware import MIDDLEWARE

for module in pkgutil.iter_modules(routes.__path__):
    importlib.import_module(f"shop.routes.{module.name}")


def handle(request: Request) -> Response:
    for before in MIDDLEWARE:
        if (response := before(request)) is not None:
            return response
    handler = ROUTES.get((request.method, request.path))
    return handler(request) if handler else Response(404, {"error": "not found"})


def application(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    request = Request(
        method=environ["REQUEST_METHOD"],
        path=environ["PATH_INFO"],
        headers={key[5:].lower(): value for key, value in environ.items() if key.startswith("HTTP_")},
        body=environ["wsgi.input"].read(length),
        client=environ.get("REMOTE_ADDR", ""),
    )
    response = handle(request)
    headers = [("Content-Type", "application/json"), *response.headers.items()]
    start_response(f"{response.status} ", headers)
    return [json.dumps(response.body).encode()]
''',
    "shop/middleware.py": '''\
"""What every request passes: each may answer instead of the routes."""

from collections.abc import Callable

from shop.http import Request, Response

MIDDLEWARE: list[Callable[[Request], Response | None]] = []
''',
    "shop/catalog.py": '''\
"""What the shop sells. Prices are in cents."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Product:
    sku: str
    name: str
    price: int

    def as_json(self) -> dict[str, object]:
        return asdict(self)


PRODUCTS = [
    Product("mug", "Mug", 1200),
    Product("pen", "Pen", 350),
    Product("bag", "Bag", 4900),
]


def find(sku: str) -> Product | None:
    return next((product for product in PRODUCTS if product.sku == sku), None)
''',
    "shop/auth.py": '''\
"""Signed tokens: `<user>.<expiry>.<signature>`."""

import hashlib
import hmac


def issue(user: str, expires: int, secret: bytes) -> str:
    """A token for the user, valid until the Unix time `expires`."""
    return f"{user}.{expires}.{_sign(user, expires, secret)}"


def verify(token: str, now: int, secret: bytes) -> str | None:
    """The token's user, or None when it is malformed, forged or expired."""
    user, _, rest = token.partition(".")
    expires, _, signature = rest.partition(".")
    if not user or not expires.isdigit():
        return None
    if not hmac.compare_digest(signature, _sign(user, int(expires), secret)):
        return None
    return user if now < int(expires) else None


def _sign(user: str, expires: int, secret: bytes) -> str:
    return hmac.new(secret, f"{user}.{expires}".encode(), hashlib.sha256).hexdigest()
''',
    "shop/routes/__init__.py": '"""One module a group of routes."""\n',
    "shop/routes/health.py": '''\
"""Is the shop open?"""

from shop.http import Request, Response, route


@route("GET", "/api/health")
def health(request: Request) -> Response:
    return Response(200, {"status": "ok"})
''',
    "tests/__init__.py": "",
    "tests/test_health.py": """\
import unittest

from shop.app import handle
from shop.http import Request


class HealthTest(unittest.TestCase):
    def test_the_shop_is_open(self):
        self.assertEqual(handle(Request("GET", "/api/health")).body, {"status": "ok"})

    def test_what_is_not_there_is_not_found(self):
        self.assertEqual(handle(Request("GET", "/api/nothing")).status, 404)
""",
}


def write_sample_project(folder: Path) -> None:
    """Write the project's files into an empty folder."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
