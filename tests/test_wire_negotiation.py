"""What a request asks for: media types by RFC 9110, preferences by RFC 7240."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from chainserve.wire.negotiation import Preferences, choose_media_type

SSE, NDJSON, TEXT = "text/event-stream", "application/x-ndjson", "text/plain"


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, SSE),
        ("", SSE),
        (" , ,", SSE),
        ("*/*", SSE),
        (SSE, SSE),
        (NDJSON, NDJSON),
        (TEXT, TEXT),
        ("Text/PLAIN", TEXT),
        ("application/*", NDJSON),
        ("text/*", SSE),
        ("text/plain, application/x-ndjson", NDJSON),
        ("text/plain, application/x-ndjson, text/event-stream", SSE),
        ("application/json", None),
        ("text/html,application/xhtml+xml", None),
        ("*/*;q=0", None),
        ("text/event-stream;q=0", None),
        # What clients send without being asked: axios, a browser's image, older Javas, curl.
        ("application/json, text/plain, */*", SSE),
        ("image/avif,image/webp,*/*;q=0.8", SSE),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", SSE),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", SSE),
    ],
)
def test_an_accept_header_chooses_a_media_type(accept: str | None, media_type: str | None) -> None:
    assert choose_media_type(accept) == media_type


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/plain;q=0.5, application/x-ndjson;q=0.9", NDJSON),
        ("text/event-stream;q=0.001, text/plain;q=0.002", TEXT),
        ("text/plain, */*;q=0.1", TEXT),
        ("text/plain;q=0.2, */*;q=0.1", TEXT),
        ("text/*;q=0.3, text/plain;q=0.7, */*;q=0.5", TEXT),
        ("text/*, text/event-stream;q=0.4", TEXT),
        ("text/event-stream;q=0, */*", NDJSON),
        ("text/*;q=0, */*", NDJSON),
        ("*/*, text/*;q=0, application/x-ndjson;q=0", None),
        ("text/plain;Q=0, text/plain;charset=utf-8", TEXT),
        ("text/plain ; q=1.000 , */* ; q=0.", TEXT),
    ],
)
def test_the_highest_weight_wins_and_the_most_specific_range_gives_it(
    accept: str, media_type: str | None
) -> None:
    assert choose_media_type(accept) == media_type


@pytest.mark.parametrize("weight", ["2", "-1", "1.001", "0.1234", "x", "", "\u0661", "1e0"])
def test_an_element_with_a_malformed_weight_is_ignored(weight: str) -> None:
    assert choose_media_type(f"text/plain;q={weight}, application/x-ndjson;q=0.1") == NDJSON
    assert choose_media_type(f"application/x-ndjson;q=0.1, text/plain;q={weight}") == NDJSON


@pytest.mark.parametrize(
    "element",
    ["text", "*", "*/plain", "text/", "/", "text/plain/x", "t\u00e9xt/plain", "@", ";", "="],
)
def test_a_malformed_element_is_ignored(element: str) -> None:
    assert choose_media_type(f"{element}, text/plain") == TEXT
    assert choose_media_type(f"text/plain, {element}") == TEXT
    assert choose_media_type(element) == SSE


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("text/plain; charset=utf-8", TEXT),
        ('text/plain;CHARSET="UTF-8"', TEXT),
        ("text/plain;;", TEXT),
        ("text/plain; ; q=0.5", TEXT),
        ("text/plain;charset=latin-1", None),
        ("text/plain;format=flowed, application/x-ndjson;q=0.1", NDJSON),
        ("text/plain;q=0.5;ext=1", TEXT),
        ("text/plain;=", SSE),
        ('text/html;title="a, text/plain"', None),
        (r'text/html;title="\", text/plain"', None),
        ('text/plain;q="0.5"', TEXT),
    ],
)
def test_a_range_with_parameters_fits_what_has_them(accept: str, media_type: str | None) -> None:
    assert choose_media_type(accept) == media_type


@pytest.mark.parametrize(
    ("values", "preferences"),
    [
        ([], Preferences(resumable=False, wait=None)),
        ([""], Preferences()),
        (["resumable"], Preferences(resumable=True)),
        (["Resumable"], Preferences(resumable=True)),
        (['resumable=""'], Preferences(resumable=True)),
        (["resumable=no"], Preferences()),
        (["resumable; scope=run"], Preferences(resumable=True)),
        (["scope; resumable"], Preferences()),
        ([";resumable"], Preferences()),
        (["not-resumable, resumables"], Preferences()),
        (["wait=10"], Preferences(wait=10)),
        (["WAIT=10"], Preferences(wait=10)),
        (["wait=0"], Preferences(wait=0)),
        (["wait=0.25"], Preferences(wait=0.25)),
        (["wait \t= 10 ; x=1"], Preferences(wait=10)),
        (['wait="10"'], Preferences(wait=10)),
        ([r'wait="\10"'], Preferences(wait=10)),
        (['foo="a, wait=1", wait=2'], Preferences(wait=2)),
        (["foo; bar=wait, wait=2"], Preferences(wait=2)),
        (["respond-async, wait=5, resumable"], Preferences(resumable=True, wait=5)),
        (["respond-async", "wait=5", "resumable"], Preferences(resumable=True, wait=5)),
        (["wait=" + "9" * 5000], Preferences(wait=2**31)),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_preferences_are_read_from_all_lines(values: list[str], preferences: Preferences) -> None:
    assert Preferences.parse(values) == preferences


@pytest.mark.parametrize("values", [["wait=1, wait=2"], ["wait=1", "wait=2"], ["wait=1;a, WAIT=2"]])
def test_the_first_of_two_equal_preferences_counts(values: list[str]) -> None:
    assert Preferences.parse(values).wait == 1


@pytest.mark.parametrize(
    "wait",
    ["-1", "+1", "1e3", "inf", "nan", "1_0", "", '"', '"1', "1 0", ".5", "5.", "\u0661", "x"],
)
def test_a_malformed_wait_is_none(wait: str) -> None:
    assert Preferences.parse([f"wait={wait}"]).wait is None


@settings(deadline=None, max_examples=300)
@given(st.text('atexplinqw*/;=,." \\\t01', max_size=60) | st.text(max_size=20))
def test_no_header_is_too_strange_to_be_read(header: str) -> None:
    assert choose_media_type(header) in (SSE, NDJSON, TEXT, None)
    assert isinstance(Preferences.parse([header, header]), Preferences)


@pytest.mark.parametrize("junk", ['"', r'"\"', ",", ";", "a/b;", " ", "\\", 'a="', "a=b,"])
def test_of_a_header_of_any_length_only_the_beginning_is_read(junk: str) -> None:
    long = junk * 100_000

    assert choose_media_type(f"text/plain,{long}, application/x-ndjson") == TEXT
    assert Preferences.parse([f"wait=3,{long}, resumable"]) == Preferences(wait=3)
