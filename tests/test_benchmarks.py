"""The benchmarks: their arithmetic, and that what is measured answers as it has to. No timings."""

import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from json import loads
from pathlib import Path

import pytest

from benchmarks import report, wrk
from benchmarks.__main__ import main
from benchmarks.cases import (
    CASES,
    IDLE_BARE,
    IDLE_USUAL,
    PACED_BRIEFLY,
    REPLAYED,
    SHORT,
    WORKED,
    Case,
)
from benchmarks.contestants import (
    CEILING,
    FLOOR,
    OURS,
    THEIRS,
    Field,
    Sample,
    Start,
    count_chunks,
    field,
    request_of,
)
from benchmarks.figures import Goal, Row, Spread, missed, percentile, ratios, replaced
from benchmarks.growth import growth_of
from benchmarks.http import Answer, encode_request, joined_chunks, with_a_key
from benchmarks.latency import delays, measure_latency
from benchmarks.load import Tally
from benchmarks.measure import (
    QUICK,
    Effort,
    enough_requests,
    first_row,
    in_turns,
    rotated,
    row_of,
    share_row,
)
from benchmarks.memory import measure_idle
from benchmarks.plan import PLAN, Item, chosen
from benchmarks.processes import (
    ROOT,
    Asked,
    MeasuringError,
    cpu_seconds,
    resident_bytes,
)
from benchmarks.replay import measure_replay
from benchmarks.serve import serve_workers
from benchmarks.workers import Worked, rows_of, work
from chainserve.cli.serve import set_up
from chainserve.cli.target import parse_target
from tests._system import require_program

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
    pytest.mark.timeout(240),  # Four processes start, and each imports LangChain.
]

TINY = Effort(rounds=1, patience=1, cpu_seconds=0.001, connections=1, streams=2, wrk_seconds=0)
HEAD = b"HTTP/1.1 200 OK\r\nServer: x\r\n"


# The arithmetic.


def test_a_spread_is_the_middle_and_the_farthest() -> None:
    assert Spread.of([3, 1, 2]) == Spread(2, 1, 3)
    assert Spread.of([4, 1]) == Spread(2.5, 1, 4)


def test_ratios_are_those_of_each_round() -> None:
    assert ratios([6, 9], [2, 3]) == [3, 3]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


@pytest.mark.parametrize(("percent", "figure"), [(0, 1), (50, 50), (99, 99), (99.5, 100)])
def test_a_percentile_is_a_figure_that_was_measured(percent: float, figure: int) -> None:
    assert percentile(range(100, 0, -1), percent) == figure


def test_the_percentile_of_one_figure_is_that_figure() -> None:
    assert percentile([7], 99) == 7


def test_a_goal_is_met_from_its_side() -> None:
    assert Goal(3, 6).met_by(3)
    assert not Goal(3, 6).met_by(2.9)
    assert Goal(3, 6).met_by(1.8, share=0.6)
    assert Goal(0.5, 0.2, at_most=True).met_by(0.5)
    assert not Goal(0.5, 0.2, at_most=True).met_by(0.6)
    assert Goal(0.5, 0.2, at_most=True).met_by(0.6, share=0.5)


def a_row(**options: object) -> Row:
    values = {"case": "x", "title": "X", "unit": "ms CPU", "costs": {}, "judged": [2.0, 4.0, 3.0]}
    return Row(**{**values, **options})  # type: ignore[arg-type]


def test_a_row_passes_by_its_median() -> None:
    assert a_row(goal=Goal(3, 6)).passes()
    assert not a_row(goal=Goal(3.5, 6)).passes()
    assert a_row(goal=Goal(3.5, 6)).passes(0.6)
    assert a_row().passes() is None
    assert a_row(goal=Goal(3, 6), judged=[]).passes() is None


def test_what_misses_its_share_is_named() -> None:
    rows = [a_row(), a_row(title="Y", goal=Goal(5, 6)), a_row(title="Z", goal=Goal(10, 20))]
    assert [row.title for row in missed(rows, 1)] == ["Y", "Z"]
    assert [row.title for row in missed(rows, 0.6)] == ["Z"]


def test_a_row_that_was_measured_again_takes_the_place_of_the_first() -> None:
    rows, again = [a_row(), a_row(title="Y")], a_row(title="Y", judged=[5.0])
    assert replaced(rows, [again]) == [rows[0], again]


def test_a_sample_is_counted_for_each_request() -> None:
    sample = Sample(requests=4, cpu=0.02, seconds=2)
    assert (sample.cost, sample.rate) == (5, 2)


@dataclass
class Steady:
    """A contestant that always costs the same."""

    cpu: float
    asked: int = 0

    def sample(self, requests: int, connections: int) -> Sample:
        self.asked += requests
        return Sample(requests, self.cpu * requests, 1)


def test_a_turn_has_the_requests_that_fill_it() -> None:
    effort = Effort(rounds=1, cpu_seconds=1, connections=8, longest=500)
    assert enough_requests(Steady(0.01), effort) == 100
    assert enough_requests(Steady(1), effort) == 8
    assert enough_requests(Steady(0), effort) == 500


def test_everybody_has_a_turn_in_each_round_and_is_first_in_their_turn() -> None:
    assert [rotated("abc", number) for number in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip
    samples = in_turns({"a": Steady(1), "b": Steady(2)}, replace(TINY, rounds=3))
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 3}


def test_a_row_compares_the_cost_of_both_servers_and_of_the_chain() -> None:
    costs = {OURS: 2.0, THEIRS: 6.0, FLOOR: 1.0}
    samples = {name: [Sample(1, cost, 0.5, 0.1)] for name, cost in costs.items()}
    row = row_of(SHORT, samples)
    assert row.judged == [3]
    assert row.rates[OURS] == [2]
    assert row.firsts == {OURS: [100], THEIRS: [100]}
    assert share_row(SHORT, Goal(0.75, 0.9), samples).judged == [0.5]
    assert first_row(row).judged == [1]


def test_processor_time_and_memory_are_those_of_a_process_and_its_children() -> None:
    burn = "while time.process_time() < 0.2: pass"
    child = f"import time\n{burn}\nprint(flush=True)\ninput()"
    parent = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', {f'import time{chr(10)}{burn}'!r}])\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        f"{burn}\nchild.wait()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        both = resident_bytes(process.pid)
        used = cpu_seconds(process.pid)
        process.communicate(b"\n")
    assert used > 0.2 + 0.15, "the child that runs, and the one that has ended"
    assert both > 2 * 5_000_000


# The bytes.


def fed(data: bytes, size: int) -> Answer:
    answer = Answer()
    for start in range(0, len(data), size):
        assert not answer.complete
        answer.feed(data[start : start + size])
    return answer


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        b"content-length: 0\r\n\r\n",
    ],
)
def test_an_answer_is_complete_with_its_last_byte(rest: bytes, size: int) -> None:
    answer = fed(HEAD + rest, size)
    assert answer.complete
    assert answer.status == 200


def test_an_answer_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="without an end"):
        fed(HEAD + b"\r\n", 1000)


def test_the_end_of_a_long_answer_is_kept() -> None:
    answer = fed(HEAD + b"content-length: 9000\r\n\r\n" + b"x" * 8997 + b"end", 1000)
    assert answer.tail.endswith(b"xxxend")
    assert answer.size == 9000


def test_an_answer_that_is_not_as_it_has_to_be_is_told() -> None:
    tally, good = Tally(), fed(HEAD + b"content-length: 3\r\n\r\nend", 1000)
    tally.count(good, b"end", 0.5)
    assert (tally.answers, tally.size, tally.firsts) == (1, 3, [0.5])
    with pytest.raises(Exception, match="200"):
        tally.count(good, b"more", None)
    with pytest.raises(Exception, match="500"):
        tally.count(fed(b"HTTP/1.1 500 X\r\ncontent-length: 3\r\n\r\nend", 99), b"end", None)


def test_chunks_are_joined() -> None:
    assert joined_chunks(b"5\r\nhello\r\nb\r\n wide world\r\n0\r\n\r\n") == b"hello wide world"


def test_each_request_has_a_key_of_its_own() -> None:
    request = encode_request("POST", "/x", {"idempotency-key": "{key}"}, b"{}")
    assert request.startswith(b"POST /x HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n")
    assert with_a_key(request) != with_a_key(request)
    assert b"{key}" not in with_a_key(request)


def test_streams_of_ours_can_be_resumed_where_the_case_does_not_say_otherwise() -> None:
    assert b"prefer: resumable" in request_of(SHORT, OURS)
    assert b"prefer" not in request_of(SHORT, THEIRS)
    assert b"prefer" not in request_of(replace(SHORT, resumable=False), OURS)


# What is measured.


ANSWERED = [case for case in CASES if case.mounted == 1]
WAITING = [IDLE_BARE, IDLE_USUAL, PACED_BRIEFLY, REPLAYED]


@pytest.fixture(scope="module")
def load() -> Iterator[Asked]:
    with Asked(["load"], None) as process:
        yield process


@pytest.fixture(scope="module")
def everybody(load: Asked) -> Iterator[Field]:
    """Start all that the tests need once, and measure without waiting for anything to settle."""
    with pytest.MonkeyPatch.context() as patched, field([*ANSWERED, *WAITING], load) as everybody:
        patched.setattr("benchmarks.contestants._SETTLE_SECONDS", 0)
        yield everybody


@pytest.fixture
def start(everybody: Field) -> Start:
    """Lend the servers that run already to who would start some."""
    return lambda case, kind, load: nullcontext(everybody.served(case, kind))


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case.name)
def test_everybody_answers_each_case_with_what_the_chain_says(everybody: Field, case: Case) -> None:
    found = everybody.contestants(case)
    samples = in_turns(found, TINY)

    assert [*found] == [FLOOR, CEILING, OURS, THEIRS]
    assert all(sample.cpu > 0 for taken in samples.values() for sample in taken)
    told = {name for name, taken in samples.items() if taken[0].first}
    assert told == ({CEILING, OURS, THEIRS} if case.streams else set())


def test_of_many_chains_the_last_is_called() -> None:
    [many] = [case for case in CASES if case.mounted > 1]

    assert len({*many.paths}) == many.mounted
    assert many.target == f"{many.paths[-1]}/invoke"


def test_a_server_that_answers_something_else_is_told(everybody: Field) -> None:
    server = everybody.served(SHORT, OURS)
    with pytest.raises(MeasuringError, match=r"chainserve, stream-str answers \d+ chunks of 7"):
        server.check(7)
    with pytest.raises(MeasuringError, match="without a token"):
        delays(PACED_BRIEFLY, server, 2)  # No token of this chain tells when it was said.


def test_an_output_that_is_not_there_is_no_chunk() -> None:
    invoke = next(case for case in CASES if case.verb == "invoke")
    assert count_chunks(invoke, HEAD + b'\r\n{"output":""}') == 0
    assert count_chunks(invoke, HEAD + b'\r\n{"output":"x"}') == 1


def test_a_load_that_gets_no_answer_is_told(load: Asked) -> None:
    request = encode_request("GET", "/", {}).decode()
    with pytest.raises(MeasuringError, match="Error"):
        load.ask(do="once", port=1, request=request)


def test_the_growth_of_a_chunks_cost_is_measured(everybody: Field) -> None:
    [shorter] = [case for case in CASES if case.name == "invoke-chain"]
    longer, growth = growth_of((shorter, SHORT), everybody, TINY)
    assert longer.title == SHORT.title
    assert growth.goal is not None
    assert growth.goal.at_most
    assert len(growth.judged) == 1


@pytest.mark.parametrize("case", [IDLE_BARE, IDLE_USUAL], ids=lambda case: case.name)
def test_the_memory_of_idle_streams_is_measured(load: Asked, start: Start, case: Case) -> None:
    [row] = measure_idle(case, load, TINY, start=start)
    assert {kind: len(costs) for kind, costs in row.costs.items()} == {OURS: 1, THEIRS: 1}
    assert row.title == f"{case.title}, 2 streams"


def test_fewer_idle_streams_than_were_asked_for_are_told(
    load: Asked, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.memory.raise_open_files", lambda wanted: wanted - 4)
    [row] = measure_idle(IDLE_BARE, load, TINY, 5, start)
    assert row.title.endswith(", 6 streams (of 10: no more files may be open here)")


def test_the_delay_of_tokens_is_measured(load: Asked, start: Start) -> None:
    half, tail = measure_latency(PACED_BRIEFLY, load, TINY, parts=[0.5], start=start)
    assert half.goal is None
    assert tail.goal is not None
    assert half.costs[OURS][0] <= tail.costs[OURS][0]


def test_a_replay_has_all_events_and_their_ids(load: Asked, start: Start) -> None:
    [row] = measure_replay(REPLAYED, load, TINY, start)
    assert len(row.judged) == 1


def test_the_work_of_each_process_is_measured(everybody: Field) -> None:
    worked = work(everybody.served(SHORT, OURS), 2, TINY)

    assert worked.requests == 2
    assert 0 < worked.busiest <= worked.cost


def test_two_workers_are_those_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("chainserve.cli.main", given.append)
    monkeypatch.setenv("BENCHMARKED", "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    serve_workers(2, [WORKED], 8001)
    [[command, *arguments]] = given
    parser = ArgumentParser()
    set_up(parser)
    options = parser.parse_args(arguments)

    assert (command, options.workers, options.stateless, options.port) == ("serve", 2, True, 8001)
    app = parse_target(options.target).load().app
    assert WORKED.target in {getattr(route, "path", "") for route in app.routes}


@pytest.mark.parametrize(
    ("cores", "of_the_clock", "of_the_processor"), [(2, None, True), (3, False, None)]
)
def test_two_workers_are_judged_by_the_clock_where_there_are_cores_for_all(
    cores: int, of_the_clock: bool | None, of_the_processor: bool | None
) -> None:
    one, two = Worked(100, 1.0, (0.9,)), Worked(150, 1.0, (0.0, 0.7, 0.71))
    by_the_clock, by_the_processor = rows_of(WORKED, [one], [two], cores)

    assert by_the_clock.judged == [1.5]
    assert [*by_the_processor.judged] == pytest.approx([9 / (0.71 * 1000 / 150)])
    assert by_the_clock.passes() is of_the_clock
    assert by_the_processor.passes() is of_the_processor


def test_wrk_sends_each_request_with_a_key_of_its_own() -> None:
    said = wrk.script(request_of(SHORT, OURS))
    assert '"{key}", "' in said
    assert "prefer: resumable\\r\\n" in said


@pytest.mark.parametrize(
    "said",
    [
        "Latency 1ms",
        "0 requests in 2.00s, 0B read",
        "9 requests in 2.00s, 1KB read\n  Non-2xx or 3xx responses: 1",
        "9 requests in 2.00s, 1KB read\n  Socket errors: connect 0, read 1, write 0, timeout 0",
    ],
)
def test_what_wrk_has_not_measured_is_told(said: str) -> None:
    with pytest.raises(MeasuringError, match="wrk"):
        wrk.parsed(said)
    assert wrk.parsed("  9 requests in 2.50s, 1KB read") == (9, 2.5)
    assert wrk.parsed("  9 requests in 500.00ms, 1KB read") == (9, 0.5)


@pytest.mark.skipif(not wrk.is_installed(), reason="needs wrk")
def test_wrk_gets_whole_answers(everybody: Field) -> None:
    answers, seconds = everybody.served(SHORT, OURS).ask_for(1, 1)
    assert answers > 0
    assert seconds > 0


# The command.


def test_what_can_be_measured_has_names_of_its_own() -> None:
    names = [item.name for item in PLAN]
    assert len({*names}) == len(names)
    assert [item.name for item in chosen((), quickly=False)] == names
    assert [item.name for item in chosen({"growth"}, quickly=False)] == ["growth"]
    assert [item.name for item in chosen((), quickly=True)] == ["quick"]


def test_the_command_prints_a_table_and_writes_the_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--case", "replay", "--rounds", "2", "--seconds", "0.01", "--check", "0.001"]

    status = main([*sizes, "--results", str(tmp_path / "results")])
    assert status == 0

    printed = capsys.readouterr()
    assert printed.out.startswith("case ")
    assert "replay of a finished log, with ids" in printed.out
    assert ("No plots" in printed.err) == (find_spec("matplotlib") is None)
    found = loads((tmp_path / "results" / "results.json").read_text())
    [row] = found["rows"]
    assert {name: len(costs) for name, costs in row["costs"].items()} == {"chainserve": 2}
    assert found["machine"]["packages"]["langserve"] == "0.3.3"
    written = (tmp_path / "results" / "results.md").read_text()
    assert "| replay of a finished log, with ids | events/s CPU |" in written


def test_what_misses_the_check_is_measured_once_more_before_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds: list[tuple[str, int]] = []

    def measuring(name: str, *figures: float) -> Item:
        left = iter(figures)

        def measure(load: Asked, effort: Effort) -> Iterator[Row]:
            rounds.append((name, effort.rounds))
            yield a_row(case=name, title=name.upper(), goal=Goal(3, 6), judged=[next(left)])

        return Item(name, measure)

    plan = (measuring("x", 2), measuring("y", 1, 2), measuring("z", 1, 1))
    monkeypatch.setattr("benchmarks.plan.PLAN", plan)

    assert main(["--check", "0.5", "--rounds", "2", "--results", str(tmp_path)]) == 1
    assert rounds == [("x", 2), ("y", 2), ("z", 2), ("y", 4), ("z", 4)]
    assert capsys.readouterr().err.count("less than 0.5 of what it must be") == 1


@pytest.mark.parametrize(
    ("options", "effort"),
    [
        ([], Effort()),
        (["--quick"], QUICK),
        (
            ["--quick", "--rounds", "2", "--seconds", "0.3"],
            replace(QUICK, rounds=2, cpu_seconds=0.3),
        ),
        (["--connections", "3", "--streams", "4"], Effort(connections=3, streams=4)),
    ],
)
def test_the_effort_is_the_usual_one_but_for_what_is_asked(
    options: list[str], effort: Effort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Effort] = []

    def measure(load: Asked, effort: Effort) -> Iterator[Row]:
        given.append(effort)
        yield a_row()

    monkeypatch.setattr("benchmarks.__main__.chosen", lambda *_, **__: [Item("x", measure)])

    assert main([*options, "--results", str(tmp_path)]) == 0
    assert given == [effort]


def test_a_cell_says_what_was_asked_of_it() -> None:
    row = a_row(goal=Goal(3.5, 6), costs={OURS: [1234.5]}, rates={OURS: [12.34]})
    assert report.cells(row) == [
        "X", "ms CPU", "", "", "1,234", "",
        "3.00", "2.00 to 4.00", "", "≥ 3.50", "fail", "12.3/s", "",
    ]  # fmt: skip


def test_the_least_costs_are_compared_beside_the_medians() -> None:
    row = a_row(costs={OURS: [2.0, 1.0], THEIRS: [3.0, 4.0]})
    assert report.cells(row)[report.HEADINGS.index("of the least")] == "3.00"
    assert len(report.cells(row)) == len(report.HEADINGS)


def test_the_makefile_measures() -> None:
    make = require_program("make", package="make")
    done = subprocess.run([make, "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "  bench " in done.stdout
