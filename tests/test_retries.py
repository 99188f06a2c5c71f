"""When a call is made again, without a socket and without a clock."""

from typing import Any

import httpx2
import pytest

from chainserve.calls import Call
from chainserve.client_errors import RemoteStatusError
from chainserve.remote import RemoteRun
from chainserve.retries import Retries


def delays(retries: Retries, count: int) -> list[float | None]:
    return [retries.next_delay() for _ in range(count)]


def test_the_longest_delay_doubles_up_to_a_bound() -> None:
    retries = Retries(7, rand=lambda: 1.0)
    assert delays(retries, 8) == [1, 2, 4, 8, 10, 10, 10, None]


def test_the_server_says_what_the_delays_begin_with() -> None:
    retries = Retries(3, rand=lambda: 1.0)
    retries.retry_ms = 30
    assert delays(retries, 4) == [0.03, 0.06, 0.12, None]


def test_a_delay_is_any_time_up_to_the_longest() -> None:
    found = [Retries(1).next_delay() for _ in range(200)]
    assert all(delay is not None and 0 <= delay <= 1 for delay in found)
    assert len(set(found)) > 100


def test_what_came_makes_the_next_failure_the_first_again() -> None:
    retries = Retries(2, rand=lambda: 1.0)
    assert delays(retries, 2) == [1, 2]
    retries.note_progress()
    assert delays(retries, 3) == [1, 2, None]


def test_without_retries_there_is_no_delay_but_an_end() -> None:
    assert Retries(0).next_delay() is None


@pytest.mark.parametrize(("asked", "delay"), [(5, 5.0), (0, 0.5), (600, 60.0)])
def test_a_server_that_asks_to_be_left_alone_is_so_within_bounds(asked: int, delay: float) -> None:
    assert Retries(1, rand=lambda: 0.5).next_delay(asked) == delay


def answered(status: int, media_type: str, **headers: str) -> RemoteStatusError:
    request = httpx2.Request("POST", "http://test/chain/invoke")
    headers = {"content-type": media_type, **headers}
    response = httpx2.Response(status, headers=headers, request=request)
    return RemoteStatusError("wrong", code=None, detail="", request=request, response=response)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (answered(502, "text/html"), True),
        (answered(503, "text/html"), True),
        (answered(504, "text/plain"), True),
        (answered(502, "application/problem+json"), False),
        (answered(500, "text/plain"), False),
        (answered(429, "text/plain"), False),
        (answered(404, "text/html"), False),
        (httpx2.ConnectError("refused"), True),
        (httpx2.ReadError("cut"), True),
        (httpx2.RemoteProtocolError("cut"), True),
        (httpx2.WriteTimeout("too slow"), True),
        (httpx2.ReadTimeout("too slow"), False),
    ],
)
def test_a_call_is_made_again_if_what_went_wrong_may_be_over_soon(error: Any, again: bool) -> None:
    call = Call("POST", "invoke", b"{}", RemoteRun(), Retries(5), key="k", repeatable=True)
    assert (call.delay_after(error) is not None) == again


@pytest.mark.parametrize(
    ("told", "least"), [("7", 7.0), ("", 0.0), ("-1", 0.0), ("soon", 0.0), ("9" * 400, 60.0)]
)
def test_a_gateway_that_says_when_to_come_back_is_believed(told: str, least: float) -> None:
    call = Call("POST", "invoke", b"{}", RemoteRun(), Retries(5), key="k", repeatable=True)
    error = answered(503, "text/html")
    error.response.headers["retry-after"] = told
    delay = call.delay_after(error)
    assert delay is not None
    assert delay >= least
