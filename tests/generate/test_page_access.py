"""The page's links and cookies, and Prometheus' secret: what each opens, how long, and no more."""

import pytest

from generate.server.page.page_access import CODE_S, COOKIE_S, MOST_CODES, PageAccess

NOW = 1_700_000_000.0


@pytest.fixture
def access() -> PageAccess:
    return PageAccess("a token", "http://node7:5000/")


def test_a_link_is_for_one_browser(access: PageAccess) -> None:
    code = access.new_code(NOW)
    cookie = access.redeem(code, NOW + 5)
    assert cookie and access.may_look(cookie, NOW + 5)
    assert access.redeem(code, NOW + 6) is None


def test_a_link_expires(access: PageAccess) -> None:
    code = access.new_code(NOW)
    assert access.redeem(code, NOW + CODE_S + 1) is None
    assert access.redeem("", NOW) is None


def test_a_cookie_outlives_a_restart_and_ends(access: PageAccess) -> None:
    cookie = access.redeem(access.new_code(NOW), NOW) or ""
    restarted = PageAccess("a token", "http://node7:5000/")
    assert restarted.may_look(cookie, NOW + COOKIE_S)
    assert not restarted.may_look(cookie, NOW + COOKIE_S + 1)


def test_a_new_token_ends_all_cookies(access: PageAccess) -> None:
    cookie = access.redeem(access.new_code(NOW), NOW) or ""
    assert not PageAccess("a new token", "http://node7:5000/").may_look(cookie, NOW)


@pytest.mark.parametrize("address", ["http://node7:5001/", "http://node8:5000/"])
def test_a_cookie_is_good_at_one_address(access: PageAccess, address: str) -> None:
    """A stranger on a dead server's port is sent it by a page that is open."""
    cookie = access.redeem(access.new_code(NOW), NOW) or ""
    assert not PageAccess("a token", address).may_look(cookie, NOW)


@pytest.mark.parametrize("cookie", ["", ".", "9999999999.", "9999999999.abc", "é.é", "nan."])
def test_a_made_up_cookie_opens_nothing(access: PageAccess, cookie: str) -> None:
    assert not access.may_look(cookie, NOW)


def test_a_cookie_cannot_be_made_longer(access: PageAccess) -> None:
    end, _, proof = (access.redeem(access.new_code(NOW), NOW) or "").partition(".")
    assert not access.may_look(f"{int(end) + 1}.{proof}", NOW)


def test_each_secret_opens_its_own_thing(access: PageAccess) -> None:
    cookie = access.redeem(access.new_code(NOW), NOW) or ""
    assert access.may_scrape(f"Bearer {access.metrics_secret}")
    assert not access.may_scrape(f"Bearer {cookie}")
    assert not access.may_scrape("Bearer a token")
    assert not access.may_scrape("")
    assert not access.may_look(access.metrics_secret, NOW)


def test_unused_links_do_not_pile_up(access: PageAccess) -> None:
    codes = [access.new_code(NOW) for _ in range(MOST_CODES + 10)]
    assert access.redeem(codes[0], NOW) is None
    assert access.redeem(codes[-1], NOW)
