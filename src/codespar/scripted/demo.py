"""The demo's four instructions and what the scripted model does for each: it looks, writes, tests and reports, as a model would.

The coding CLI really carries out every call in its container; only the model's choice of words is prepared.
"""

from __future__ import annotations

from codespar.scripted.script import Library, Script, Turn, bash, edit, read, write

TEST = "python3 -m unittest discover -s tests"
PRODUCTS = "add GET /api/products with filtering by maximum price"
ORDERS = "add POST /api/orders that checks the items and answers with the total"
AUTH = "write unit tests for the auth module"
LIMIT = "add rate limiting: 60 requests a minute for each client"
DEMO_INSTRUCTIONS = (PRODUCTS, ORDERS, AUTH, LIMIT)

_PRODUCTS_ROUTE = '''\
"""The catalogue."""

from urllib.parse import parse_qs

from shop.catalog import PRODUCTS
from shop.http import Request, Response, route


@route("GET", "/api/products")
def products(request: Request) -> Response:
    """All products, or with the header `x-filter: max_price=<cents>` those that cost at most that."""
    wanted = parse_qs(request.headers.get("x-filter", ""))
    limit = wanted.get("max_price", [""])[0]
    if limit and not limit.isdigit():
        return Response(400, {"error": "max_price is a whole number of cents"})
    found = [product for product in PRODUCTS if not limit or product.price <= int(limit)]
    return Response(200, {"products": [product.as_json() for product in found]})
'''
_PRODUCTS_TEST = """\
import unittest

from shop.app import handle
from shop.http import Request


class ProductsTest(unittest.TestCase):
    def skus(self, query=""):
        response = handle(Request("GET", "/api/products", {"x-filter": query}))
        return [product["sku"] for product in response.body["products"]]

    def test_lists_everything(self):
        self.assertEqual(self.skus(), ["mug", "pen", "bag"])

    def test_filters_by_maximum_price(self):
        self.assertEqual(self.skus("max_price=1200"), ["mug", "pen"])

    def test_refuses_a_price_that_is_no_number(self):
        response = handle(Request("GET", "/api/products", {"x-filter": "max_price=cheap"}))
        self.assertEqual(response.status, 400)
"""
_ORDERS_ROUTE = '''\
"""Orders: checked and added up."""

from shop.catalog import find
from shop.http import Request, Response, route


@route("POST", "/api/orders")
def order(request: Request) -> Response:
    """`{"items": [{"sku", "quantity"}]}` gives the total in cents."""
    try:
        body = request.json()
    except ValueError:
        return Response(400, {"error": "the body is not JSON"})
    items = body.get("items") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        return Response(400, {"error": "an order has items"})
    total = 0
    for item in items:
        product = find(str(item.get("sku"))) if isinstance(item, dict) else None
        quantity = item.get("quantity") if isinstance(item, dict) else None
        if product is None:
            return Response(404, {"error": "there is no such product"})
        if not isinstance(quantity, int) or quantity < 1:
            return Response(400, {"error": "a quantity is a whole number from 1"})
        total += product.price * quantity
    return Response(201, {"total": total})
'''
_ORDERS_TEST = """\
import json
import unittest

from shop.app import handle
from shop.http import Request


class OrdersTest(unittest.TestCase):
    def order(self, body):
        return handle(Request("POST", "/api/orders", body=json.dumps(body).encode()))

    def test_adds_up(self):
        response = self.order({"items": [{"sku": "mug", "quantity": 2}, {"sku": "pen", "quantity": 1}]})
        self.assertEqual((response.status, response.body), (201, {"total": 2750}))

    def test_refuses_an_unknown_product(self):
        self.assertEqual(self.order({"items": [{"sku": "car", "quantity": 1}]}).status, 404)

    def test_refuses_what_is_no_order(self):
        for body in ({}, {"items": []}, {"items": [{"sku": "mug", "quantity": 0}]}, []):
            with self.subTest(body=body):
                self.assertEqual(self.order(body).status, 400)
"""
_AUTH_TEST = """\
import unittest

from shop.auth import issue, verify

SECRET = b"only for these tests"


class AuthTest(unittest.TestCase):
    def test_a_token_names_its_user(self):
        self.assertEqual(verify(issue("ada", 100, SECRET), 99, SECRET), "ada")

    def test_a_token_ends(self):
        self.assertIsNone(verify(issue("ada", 100, SECRET), 100, SECRET))

    def test_another_secret_is_refused(self):
        self.assertIsNone(verify(issue("ada", 100, SECRET), 1, b"another"))

    def test_a_changed_user_is_refused(self):
        forged = issue("ada", 100, SECRET).replace("ada", "eve", 1)
        self.assertIsNone(verify(forged, 1, SECRET))

    def test_noise_is_refused(self):
        for noise in ("", "ada", "ada.x.y", "..", "ada.100."):
            with self.subTest(noise=noise):
                self.assertIsNone(verify(noise, 1, SECRET))
"""
_LIMIT = '''\
"""Rate limiting: a sliding window for each client."""

import time
from collections import defaultdict, deque
from collections.abc import Callable

from shop.http import Request, Response

REQUESTS, SECONDS = 60, 60.0


class RateLimit:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, deque[float]] = defaultdict(deque)

    def __call__(self, request: Request) -> Response | None:
        now, seen = self._clock(), self._seen[request.client]
        while seen and now - seen[0] >= SECONDS:
            seen.popleft()
        if len(seen) >= REQUESTS:
            wait = int(SECONDS - (now - seen[0])) + 1
            return Response(429, {"error": "too many requests"}, {"Retry-After": str(wait)})
        seen.append(now)
        return None
'''
_LIMIT_TEST = """\
import unittest

from shop.http import Request
from shop.ratelimit import REQUESTS, RateLimit


class RateLimitTest(unittest.TestCase):
    def setUp(self):
        self.now = 0.0
        self.limit = RateLimit(lambda: self.now)

    def ask(self, client="1.2.3.4"):
        return self.limit(Request("GET", "/api/health", client=client))

    def test_the_window_is_full_after_its_requests(self):
        self.assertEqual([self.ask() for _ in range(REQUESTS)], [None] * REQUESTS)
        refused = self.ask()
        self.assertEqual((refused.status, refused.headers["Retry-After"]), (429, "61"))

    def test_the_window_slides(self):
        for _ in range(REQUESTS):
            self.ask()
        self.now = 60.0
        self.assertIsNone(self.ask())

    def test_clients_do_not_share_a_window(self):
        for _ in range(REQUESTS):
            self.ask()
        self.assertIsNone(self.ask("5.6.7.8"))
"""
_MIDDLEWARE_OLD = (
    "from shop.http import Request, Response\n\nMIDDLEWARE: list[Callable[[Request], Response | None]] = []\n"
)
_MIDDLEWARE_NEW = (
    "from shop.http import Request, Response\nfrom shop.ratelimit import RateLimit\n\n"
    "MIDDLEWARE: list[Callable[[Request], Response | None]] = [RateLimit()]\n"
)


def _tested(*turns: Turn, report: str) -> Script:
    """The turns, a run of the project's tests, and the report."""
    return Script((*turns, Turn("Now the tests.", (bash(TEST, "run the tests"),)), Turn(report)))


_PRODUCTS_SCRIPT = _tested(
    Turn("I look at how routes are made here.", (read("shop/routes/health.py"), read("shop/catalog.py"))),
    Turn("I add the route as a module of its own.", (write("shop/routes/products.py", _PRODUCTS_ROUTE),)),
    Turn("And its tests.", (write("tests/test_products.py", _PRODUCTS_TEST),)),
    report="feat: add GET /api/products\n\nLists the catalogue; `x-filter: max_price=<cents>` narrows it. A price that is no number is"
    " refused with 400.",
)
_ORDERS_SCRIPT = _tested(
    Turn("I look at the catalogue and at a route.", (read("shop/catalog.py"), read("shop/routes/health.py"))),
    Turn("I add the route.", (write("shop/routes/orders.py", _ORDERS_ROUTE),)),
    Turn("And its tests.", (write("tests/test_orders.py", _ORDERS_TEST),)),
    report="feat: add POST /api/orders\n\nChecks every item against the catalogue and answers with the total in cents. Unknown products are 404,"
    " malformed orders 400.",
)
_AUTH_SCRIPT = _tested(
    Turn("I read the module first.", (read("shop/auth.py"),)),
    Turn(
        "The tests cover valid, expired, forged and malformed tokens.",
        (write("tests/test_auth.py", _AUTH_TEST),),
    ),
    report="test: cover the auth module\n\nValid, expired, forged and malformed tokens, and another secret.",
)
_LIMIT_SCRIPT = _tested(
    Turn("I look at the middleware.", (read("shop/middleware.py"), read("shop/app.py"))),
    Turn("A sliding window, with the clock as an argument.", (write("shop/ratelimit.py", _LIMIT),)),
    Turn("I put it in front of the routes.", (edit("shop/middleware.py", _MIDDLEWARE_OLD, _MIDDLEWARE_NEW),)),
    Turn("And its tests.", (write("tests/test_ratelimit.py", _LIMIT_TEST),)),
    report="feat: limit clients to 60 requests a minute\n\nA sliding window for each client, as middleware; 429 with Retry-After beyond it.",
)
_NOTE = """\
# A note of the CodeSpar demo

The scripted model wrote this file: it cannot do real work on a repository it does not know. With `ANTHROPIC_API_KEY` set, a real model
carries out the instruction instead. Everything else of this pull request is real: Claude Code, the container, git and the tests.
"""
_FALLBACK = Script(
    (
        Turn("I look around.", (bash("git log --oneline | head -5; ls", "look around"),)),
        Turn("I leave a note.", (write("CODESPAR-DEMO.md", _NOTE),)),
        Turn(
            "docs: add a note of the demo\n\nThe scripted model played the model's part and left a note only."
        ),
    )
)
DEMO_LIBRARY = Library(
    {PRODUCTS: _PRODUCTS_SCRIPT, ORDERS: _ORDERS_SCRIPT, AUTH: _AUTH_SCRIPT, LIMIT: _LIMIT_SCRIPT}, _FALLBACK
)
