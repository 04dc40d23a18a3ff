"""Route templates of real paths."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubetape.analyze.normalise.route import MAX_ROUTE_CHARS, collapse_routes, route_template


@pytest.mark.parametrize(
    ("target", "route"),
    [
        ("/", "/"),
        ("*", "*"),
        ("shop:443", "shop:443"),
        ("/users/42/orders?page=2#top", "/users/{id}/orders"),
        ("http://shop:81/a/7?q", "/a/{id}"),
        ("http://shop?x=/a", "/"),
        ("/a/550e8400-e29b-41d4-a716-446655440000", "/a/{uuid}"),
        ("/a/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/a/{id}"),
        ("/img/0123456789abcdef0123456789abcdef.png", "/img/{hash}.png"),
        ("/reports/2024-01-02/x", "/reports/{date}/x"),
        ("/u/a.b@example.com/mail", "/u/{email}/mail"),
        ("/hosts/10.0.0.1", "/hosts/{ip}"),
        ("/orders/order-1234", "/orders/order-{id}"),
        ("/t/eyJhbGciOiJIUzI1NiIsInR5cCI6", "/t/{token}"),
        ("/api/v1/namespaces/default/pods/web-7d4b9c6f5-x2x9z", "/api/v1/namespaces/default/pods/web-{id}"),
        ("/apis/apps/v1beta1/deployments", "/apis/apps/v1beta1/deployments"),
        ("/getCustomerByNameAndAddress", "/getCustomerByNameAndAddress"),
        ("/readme-for-developers.html;jsessionid=1A", "/readme-for-developers.html"),
        ("/js/jquery-3.6.0.min.js", "/js/jquery-3.6.0.min.js"),
        ("//double//slash", "//double//slash"),
    ],
)
def test_template(target: str, route: str) -> None:
    assert route_template(target) == route


def test_deep_and_long_paths_end() -> None:
    assert route_template("/x" * 100).endswith("/{*}")
    assert len(route_template("/" + "word-" * 1000)) == MAX_ROUTE_CHARS


def test_a_place_with_very_many_values_is_an_id() -> None:
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    routes = [f"/item/{name}/price" for name in names] + ["/item/{id}/price", "/about"]
    changed = collapse_routes(routes)
    assert set(changed.values()) == {"/item/{*}/price"}
    assert "/about" not in changed
    assert collapse_routes(routes[:20]) == {}


def test_different_endpoints_behind_an_id_stay() -> None:
    names = [f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"]
    changed = collapse_routes([f"/{name}/{leaf}" for name in names for leaf in ("orders", "cart")])
    assert set(changed.values()) == {"/{*}/orders", "/{*}/cart"}


@given(st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_target(target: str) -> None:
    assert len(route_template("/" + target)) <= MAX_ROUTE_CHARS
