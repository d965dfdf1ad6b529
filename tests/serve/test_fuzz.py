"""Some hundreds of wrong requests, each told so; tests/slow has ten thousand."""

import httpx

from tests.serve.fuzz import VALID, statuses


def test_what_the_wrong_ones_are_made_of_is_right(server):
    for path, body in VALID.items():
        assert httpx.post(f"{server}{path}", json=body, timeout=30).status_code == 200


def test_wrong_requests_get_4xx_and_nothing_else(server):
    assert statuses(server, 500, seed=1) == []
    assert httpx.get(f"{server}/health").status_code == 200
