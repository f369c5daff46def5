"""What each page shows of a store, and what it says where there is nothing to show."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import httpx2
import pytest
from pyarrow import parquet
from stored import Recorder, answered, asked, record, trace
from tracefork_backend import cli
from tracefork_backend.diffs.diff import Diff, diff
from tracefork_backend.network.addresses import bind
from tracefork_backend.page import context
from tracefork_backend.page.looking import questions
from tracefork_backend.page.permits import Permits
from tracefork_backend.page.server import PageServer
from tracefork_backend.page.step import TABS
from tracefork_backend.store import Run, open_store
from tracefork_backend.store.shown import FILE, page_url

Serve = Callable[..., PageServer]
PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 60
HOSTILE = "<script>alert(1)</script>\u202e\x00\x1b[31m</pre><img src=x onerror=alert(1)>\ud800"


def got(page: PageServer, path: str, status: int = 200) -> str:
    """What a page says."""
    answer = httpx2.get(f"http://127.0.0.1:{page.port}{path}", timeout=30)
    assert answer.status_code == status, answer.text[:2000]
    return answer.text


def posted(page: PageServer, path: str, status: int = 200, **form: object) -> httpx2.Response:
    """The answer to a filled form, sent as a page of ours sends it."""
    answer = httpx2.post(
        f"http://127.0.0.1:{page.port}{path}",
        data={name: str(value) for name, value in form.items()},
        headers={"x-tracefork-token": page.page.permits.action, "hx-request": "true"},
        timeout=60,
    )
    assert answer.status_code == status, answer.text[:2000]
    return answer


def test_an_empty_store_says_what_to_type(page: Serve, tmp_path: Path) -> None:
    """On each page, and nothing is made of it by looking."""
    made = page(tmp_path / "none")
    assert "tracefork-otel run -- python agent.py" in got(made, "/")
    for path in ("/blame", "/matrix", "/jobs", "/sql", "/sql?q=select+count(*)+from+runs"):
        got(made, path)
    assert not (tmp_path / "none").exists()


def test_the_list_is_filtered_as_ls_is(page: Serve, tmp_path: Path) -> None:
    """By text, kind, status, outcome, model and time; what is no choice is said."""
    first, second = record(tmp_path, name="first agent"), record(tmp_path, name="second agent")
    made = page(tmp_path)
    assert {first[:8], second[:8]} <= set(re.findall(r"[0-9a-f]{8}", got(made, "/")))
    one = got(made, "/?text=first")
    assert "first agent" in one
    assert "second agent" not in one
    assert "first agent" in got(made, f"/?text={first[:10]}")
    assert "first agent" in got(made, "/?model=sonnet&status=ok&since=2020-01-01")
    for query in (
        "kind=fork",
        "status=killed",
        "outcome=success",
        "model=gpt",
        "since=2999-01-01",
        "offset=99",
    ):
        assert "No run is like that" in got(made, f"/?{query}"), query
    for query in ("kind=x", "since=yesterday", "offset=-1", "offset=%F0%9F%98%80", "outcome=1"):
        assert "This did not work" in got(made, f"/?{query}", 400), query


def test_a_run_and_its_steps(page: Serve, tmp_path: Path) -> None:
    """Each step in a line with its words; the one that is looked at with what is new in its prompt."""
    run_id = record(tmp_path, steps=4)
    made = page(tmp_path)
    text = got(made, f"/run/{run_id[:8]}?step=2")
    assert all(f"answer {step}" in text for step in range(4))
    assert "2 new of 5 messages" in text  # the answer before and the question
    assert "question 1" in text
    assert "all 5 messages" in got(made, f"/run/{run_id}?step=2&tab=prompt")
    changes = got(made, f"/run/{run_id}?step=2&tab=changes")
    assert re.search(r"<ins>[^<]*question 1", changes)
    for tab in ("request", "response", "headers", "draws", "spans"):
        got(made, f"/run/{run_id}?step=1&tab={tab}")
    assert "no step 9" in got(made, f"/run/{run_id}/step/9", 400)
    assert "use one of conversation" in got(made, f"/run/{run_id}/step/0?tab=x", 400)
    assert "no run" in got(made, "/run/abcdef123456", 404)
    assert "write last" in got(made, "/run/zzz", 404)


def test_the_words_are_those_of_the_step_itself(page: Serve, tmp_path: Path) -> None:
    """Not of an earlier answer that stands in its request, where it has none of its own."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id)
    recorder.exchange(run_id, asked("hello"), answered("first answer"))
    recorder.ask(run_id, asked("hello", "first answer", "go on"))
    recorder.close()
    text = got(page(tmp_path), f"/run/{run_id}")
    steps = re.findall(r'<li class="step.*?</li>', text, re.DOTALL)
    assert "first answer" in steps[0]
    assert "first answer" not in steps[1]
    assert "in flight" in steps[1]


@pytest.mark.slow
def test_long_texts_are_cut_and_come_in_pieces(page: Serve, tmp_path: Path) -> None:
    """A page of a prompt of 1.2 MB has less than 1 MB, and all of the text is to be had."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id)
    said = "".join(f"{at:07d} " for at in range(150_000))
    recorder.exchange(run_id, asked(said), answered("ok"))
    recorder.close()
    made = page(tmp_path)
    for tab in ("conversation", "prompt", "request", "changes"):
        assert len(got(made, f"/run/{run_id}?tab={tab}")) < 1_000_000, tab
    whole, where = said[:4000], f"/run/{run_id}/step/0/message/0?from=4000"
    while where:
        piece = got(made, where)
        assert len(piece) < 1_000_000
        text, _, more = piece.partition("<button")
        whole += text
        found = re.search(r'hx-get="([^"]+)"', more)
        where = found[1] if found else ""
    assert whole == said
    assert httpx2.get(f"http://127.0.0.1:{made.port}/run/{run_id}/step/0/raw/request").content == asked(said)


def test_a_picture_is_shown_from_its_recorded_bytes(page: Serve, tmp_path: Path) -> None:
    """By what its bytes say it is; what only calls itself a picture is not."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id)

    def asking(kind: str, data: bytes) -> bytes:
        source = {"type": "base64", "media_type": kind, "data": base64.b64encode(data).decode()}
        content = [{"type": "image", "source": source}, {"type": "text", "text": "what is it?"}]
        return json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()

    recorder.exchange(run_id, asking("image/png", PNG))
    recorder.exchange(run_id, asking("image/svg+xml", b"<svg onload='alert(1)'/>" + b" " * 99))
    recorder.close()
    made = page(tmp_path)
    where = re.search(r'<img src="([^"]+)"', got(made, f"/run/{run_id}?tab=prompt"))
    assert where is not None
    answer = httpx2.get(f"http://127.0.0.1:{made.port}{where[1]}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == PNG
    assert "<img" not in got(made, f"/run/{run_id}?step=1&tab=prompt")
    assert got(made, f"/run/{run_id}/step/1/picture/0", 400)


@pytest.mark.slow
def test_recorded_text_is_data_wherever_it_stands(page: Serve, tmp_path: Path) -> None:
    """Markup, terminal sequences, what turns direction, NUL, half a surrogate: shown, and nothing else."""
    recorder, run_id = Recorder(tmp_path), trace()
    recorder.root(run_id, name=HOSTILE, service=HOSTILE, attributes={"gen_ai.tool.name": HOSTILE})
    recorder.root(run_id, name=f"execute_tool {HOSTILE}", parent_span_id="0" * 16)
    recorder.exchange(
        run_id,
        asked(HOSTILE, HOSTILE, HOSTILE, model=HOSTILE),
        answered(HOSTILE),
        headers=(("content-type", "application/json"), ("x-odd", HOSTILE.replace("\ud800", ""))),
    )
    odd = HOSTILE.encode("utf-8", "surrogatepass")
    recorder.exchange(run_id, odd, b"\xff\x00</pre><script>", method="PUT")
    recorder.close()
    made = page(tmp_path)
    tabs = ("conversation", "prompt", "changes", "request", "response", "headers", "draws", "spans")
    pages = [f"/run/{run_id}?step={step}&tab={tab}" for step in (0, 1) for tab in tabs]
    pages += ["/", f"/run/{run_id}/tree", f"/diff/{run_id}/{run_id}", f"/run/{run_id}/blame"]
    pages += [f"/run/{run_id}/step/0/fork?kind={kind}" for kind in ("text", "system", "model", "set")]
    pages += ["/sql?q=select+*+from+runs", "/sql?q=" + "%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/matrix"]
    for path in pages:
        answer = httpx2.get(f"http://127.0.0.1:{made.port}{path}", timeout=30)
        text = answer.text
        assert answer.status_code in (200, 400), path
        own = re.findall(r"<script[^>]*>", text)
        assert all('src="/static/' in one for one in own), path
        assert "<img src=x" not in text, path
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\u202e]", text), path


def test_two_marked_runs_are_compared(page: Serve, tmp_path: Path) -> None:
    """Rows that are the same are folded, others have their words marked; both sides are links."""
    a, b = trace(), trace()
    for run_id, word in ((a, "Osaka"), (b, "Kyoto")):
        recorder = Recorder(tmp_path)
        recorder.root(run_id)
        for step in range(5):
            said = f"to {word}" if step == 4 else f"answer {step}"
            recorder.exchange(run_id, asked("book"), answered(said))
        recorder.close()
    made = page(tmp_path)
    answer = httpx2.get(
        f"http://127.0.0.1:{made.port}/diff", params=[("run", a), ("run", b)], follow_redirects=True
    )
    text = answer.text
    assert "steps 0 to 3: the same" in text
    assert re.search(r"<del>[^<]*Osaka", text) or re.search(r"<del>[^<]*Kyoto", text)
    assert f"/run/{a}" in text
    assert f"/run/{b}" in text
    assert "mark two" in got(made, f"/diff?run={a}", 400)


def test_a_comparison_is_made_anew_where_a_side_has_grown(
    page: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its other rows are asked for later, and cost no comparison more; a step that came since is on it."""
    a, b = trace(), trace()
    recorder = Recorder(tmp_path)
    for run_id in (a, b):
        recorder.root(run_id, end=False)
        recorder.exchange(run_id, asked("book"), answered("booked"))
    compared: list[object] = []

    def counted_diff(*sides: Run) -> Diff:
        compared.append(sides)
        return diff(*sides)

    monkeypatch.setattr(context, "diff", counted_diff)
    made = page(tmp_path)
    for begin in ("", "?from=0"):
        assert "the same in every step" in got(made, f"/diff/{a}/{b}{begin}")
    assert len(compared) == 1
    recorder.exchange(b, asked("book", "booked", "more"), answered("the second"))
    assert "the second" in got(made, f"/diff/{a}/{b}")
    recorder.close()


def test_sql_has_its_guard(page: Serve, tmp_path: Path) -> None:
    """One SELECT over the views, as a table and as CSV; anything else is refused in words."""
    record(tmp_path)
    made = page(tmp_path)
    assert "1 row" in got(made, "/sql?q=select+steps+from+runs")
    assert got(made, "/sql.csv?q=select+steps,+'a,b'+as+c+from+runs").splitlines()[1] == '3,"a,b"'
    reading = "select * from read_csv('/etc/passwd')"
    for query in ("drop view runs", reading, "copy runs to 'x'", "select 1; select 2"):
        refused = httpx2.get(f"http://127.0.0.1:{made.port}/sql", params={"q": query})
        assert refused.status_code == 400
        assert 'class="problem"' in refused.text
    for _, query in questions():
        answer = httpx2.get(f"http://127.0.0.1:{made.port}/sql", params={"q": query})
        assert answer.status_code == 200, query


def test_the_questions_are_those_of_the_docs() -> None:
    """So that what a page offers is explained there."""
    docs = (Path(__file__).parents[3] / "docs" / "sql.md").read_text()
    assert len(questions()) >= 9
    for title, query in questions():
        assert f"\n{title}" in docs
        assert f"```sql\n{query}\n```" in docs


def test_a_page_that_only_looks_says_how_to_start_one_that_acts(page: Serve, tmp_path: Path) -> None:
    """The form and the estimate are there, the button is not; what is sent all the same is refused."""
    run_id = record(tmp_path)
    made = page(tmp_path)
    assert "the model answers this text" in got(made, f"/run/{run_id}/step/0/fork")
    told = posted(made, f"/run/{run_id}/step/1/estimate", kind="text", value="other").text
    assert "1 live call" in told
    assert "--allow-run" in told
    assert "<button" not in told
    for path in (f"/run/{run_id}/step/1/fork", f"/run/{run_id}/blame"):
        assert "--allow-run" in posted(made, path, 400, kind="text", value="x", exit_code=1).text
    assert list(made.page.jobs) == []


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ({"kind": "x"}, "kind=x"),
        ({"kind": "text", "times": "0"}, "times=0"),
        ({"kind": "text", "times": "999999"}, "times=999999"),
        ({"kind": "text", "tail": "x"}, "tail=x"),
        ({"kind": "tool_input", "value": "{"}, "JSON"),
        ({"kind": "model", "value": " "}, "which model"),
        ({"kind": "set", "name": "nope.nope", "value": "1"}, "nope"),
        ({"kind": "fault", "value": "418"}, "no fault"),
        ({"kind": "tool_result", "name": "t", "value": "1"}, "step 0"),
        ({"kind": "text", "value": "x", "budget": "much"}, "budget=much"),
        ({"kind": "text", "value": "x", "budget": "3"}, "may still be spent"),
    ],
)
def test_a_form_that_cannot_be_is_refused_in_words(
    page: Serve, tmp_path: Path, form: dict[str, str], why: str
) -> None:
    """Before anything is started."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True, budget_usd=2)
    assert why in posted(made, f"/run/{run_id}/step/0/fork", 400, **form).text
    assert list(made.page.jobs) == []
    assert made.page.ledger.left_usd == 2


@pytest.mark.slow
def test_a_run_that_cannot_be_started_here_says_so(page: Serve, tmp_path: Path) -> None:
    """A fork of somebody else's run fails with the command's own words, and nothing is spent."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True, budget_usd=2)
    where = posted(made, f"/run/{run_id}/step/0/fork", kind="text", value="x").headers["hx-redirect"]
    job = made.page.jobs.get(where.rpartition("/")[2])
    assert job is not None
    assert job.process is not None
    job.process.wait(30)
    for _ in range(200):
        text = got(made, where)
        if "running" not in re.findall(r'<b class="(\w+)"', text):
            break
    assert "does not say how its agent was started" in text
    assert job.state == "failed"
    assert made.page.ledger.spent_usd == 0


def test_a_run_that_grows_is_seen_growing(page: Serve, tmp_path: Path) -> None:
    """Its row and its page ask again by themselves; a run that has ended does not."""
    run_id = trace()
    recorder = Recorder(tmp_path)
    recorder.root(run_id, end=False)
    recorder.exchange(run_id)
    made = page(tmp_path)
    assert 'hx-trigger="every 2s"' in got(made, "/")
    assert 'hx-trigger="every 2s"' in got(made, f"/run/{run_id}")
    recorder.exchange(run_id, asked("hello", "hi", "more"), answered("the second"))
    assert "the second" in got(made, f"/run/{run_id}")
    recorder.close()
    record(tmp_path)
    assert "every 2s" not in got(made, "/?status=ok")


def test_commands_know_where_a_page_is(
    page: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as it is there; a file that says something else is no address."""
    record(tmp_path)
    assert page_url(tmp_path) is None
    with PageServer(bind(), store=tmp_path, permits=Permits()) as made:
        assert page_url(tmp_path, "/blame") == f"http://127.0.0.1:{made.port}/blame"
        second = page(tmp_path)  # another one leaves the first one's address
        assert page_url(tmp_path) == f"http://127.0.0.1:{made.port}/"
        assert got(second, "/")
        assert cli._run(["doctor", "--store", str(tmp_path)]) == 0
        (tmp_path / FILE).write_text("http://evil.example\x1b[31m")
        assert page_url(tmp_path) is None
    capsys.readouterr()
    assert page_url(tmp_path) is None
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).symlink_to(tmp_path / "elsewhere")
    assert page_url(tmp_path) is None
    with PageServer(bind(), store=tmp_path, permits=Permits()) as made:
        assert got(made, "/")
    assert not (tmp_path / "elsewhere").exists()


def test_time_is_that_of_the_steps(page: Serve, tmp_path: Path) -> None:
    """A root that lasts a minute leaves the bars of steps of a second as wide as they can be."""
    made = page(tmp_path)
    text = got(made, f"/run/{record(tmp_path, steps=4)}")
    bars = re.findall(r'<li class="step.*?<rect x="([\d.]+)" y="2" width="([\d.]+)"', text, re.DOTALL)
    assert len(bars) == 4
    assert all(float(width) > 40 for _, width in bars)
    assert float(bars[-1][0]) + float(bars[-1][1]) == pytest.approx(240, abs=1)


def test_what_is_not_there_is_said_of_any_method(page: Serve, tmp_path: Path) -> None:
    """404 where there is no page, 405 where it is asked for wrongly; no name of a run is too long."""
    record(tmp_path)
    made = page(tmp_path)
    headers = {"x-tracefork-token": made.page.permits.action}
    for method in ("HEAD", "GET", "POST", "OPTIONS"):
        answer = httpx2.request(method, f"http://127.0.0.1:{made.port}/nothing", headers=headers)
        assert answer.status_code == 404, method
    answer = httpx2.put(f"http://127.0.0.1:{made.port}/sql", headers=headers)
    assert (answer.status_code, sorted(answer.headers["allow"].split(", "))) == (405, ["GET", "HEAD"])
    for path in (f"/run/{'z' * 5000}", f"/diff/last/{'z' * 5000}", f"/matrix?run={'z' * 5000}"):
        assert "names no run" in got(made, path, 404)


def test_each_page_of_a_damaged_store_says_that_it_is_short(page: Serve, tmp_path: Path) -> None:
    """Which file cannot be read, also where what is shown looks whole; a whole store says nothing of it."""
    run_id = record(tmp_path)
    open_store(tmp_path).close()  # so that each run has a segment of its own
    lost = record(tmp_path)
    made = page(tmp_path)
    paths = ("/", f"/run/{run_id}", f"/run/{run_id}/tree", "/matrix", "/blame", "/sql?q=select+*+from+runs")
    for path in paths:
        assert "incomplete: " not in got(made, path), path
    assert lost[:8] in got(made, "/")
    for file in (tmp_path / "segments").glob("*.exchanges.parquet"):
        if parquet.read_table(file, columns=["trace_id"])["trace_id"][0].as_py() == lost:
            file.write_bytes(file.read_bytes()[:-50])
            break
    else:
        pytest.fail("no segment has the run")
    made = page(tmp_path)
    for path in paths:
        said = got(made, path)
        assert "incomplete: " in said, path
        assert file.name in said, path


def test_a_store_that_is_removed_beneath_is_said_to_be_gone(page: Serve, tmp_path: Path) -> None:
    """No page breaks, and the doctor does not call healthy what is not there."""
    run_id = record(tmp_path / "store")
    made = page(tmp_path / "store")
    assert "Nothing is lost" in got(made, "/doctor")
    shutil.rmtree(tmp_path / "store")
    told = got(made, "/doctor")
    assert "There is no store here" in told
    assert "healthy" not in told
    assert "tracefork-otel run -- python agent.py" in got(made, "/")
    assert "ord one with" in got(made, f"/run/{run_id}", 404)
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_no_page_is_larger_than_a_megabyte(page: Serve, tmp_path: Path) -> None:
    """Whatever was recorded: long prompts, many steps, texts of which each letter is written as an escape."""
    runs: list[str] = []
    for side in "ab":
        runs.append(trace())
        recorder = Recorder(tmp_path)
        recorder.root(runs[-1], name="\u202e" * 5000)
        big = f"{side}{'<&' * 500_000}"
        recorder.exchange(runs[-1], asked(big, "x", big), answered("\u202e" * 300_000))
        for step in range(700):
            recorder.exchange(runs[-1], asked(f"{side}{step} & " * 60), answered(f"{side} {step} <" * 60))
        recorder.close()
    made = page(tmp_path)
    here = f"/run/{runs[0]}"
    wide = "select repeat('<', 500) a, repeat('<', 500) b, * from range(2000)"
    paths = ["/", here, f"{here}?step=400", f"{here}/tree", "/matrix", "/blame", "/doctor", "/jobs"]
    paths += [f"{here}/step/0?tab={tab}" for tab in TABS]
    paths += [f"{here}/step/0/fork?kind={kind}" for kind in ("text", "system", "set")]
    paths += [f"{here}/step/0/message/{place}?from=4000" for place in (0, 3)]
    paths += [f"{here}/step/0/text/{side}?from=0" for side in ("request", "response")]
    paths += [f"/sql?{urlencode({'q': wide})}", f"/diff/{runs[0]}/{runs[1]}"]
    for path in paths:
        assert len(got(made, path).encode()) < 1_000_000, path
    later = re.search(rf"/diff/{runs[0]}/{runs[1]}\?from=\d+", got(made, paths[-1]))
    assert later is not None
    assert "the first steps" in got(made, later[0])


def test_a_judge_is_asked_by_words_and_shown_no_file(page: Serve, tmp_path: Path) -> None:
    """What begins with `@` stays text: to a command it would be a file, and go to a model."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True)
    assert 'name="judge"' in got(made, f"/run/{run_id}/blame")
    where = posted(made, f"/run/{run_id}/blame", judge="@/etc/hostname", judge_model="m").headers
    job = made.page.jobs.get(where["hx-redirect"].rpartition("/")[2])
    assert job is not None
    assert "--judge=@@/etc/hostname" in job.words
    assert "--judge-model=m" in job.words
    made.page.jobs.close()


def test_what_the_budget_cannot_pay_is_not_begun(page: Serve, tmp_path: Path) -> None:
    """It is said in the button's place; a fork that costs nothing is begun by whoever has nothing."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True)
    told = posted(made, f"/run/{run_id}/step/0/estimate", kind="resample").text
    assert "likely to take" in told
    assert "<button" not in told
    assert "likely to take" in posted(made, f"/run/{run_id}/step/0/fork", 400, kind="resample").text
    assert (
        "<button"
        in posted(made, f"/run/{run_id}/step/0/estimate", kind="text", value="x", tail="offline").text
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"kind": "text", "value": "@home 'x'"}, "'--text=@@home '\"'\"'x'\"'\"''"),
        ({"kind": "system", "value": "other", "scope": "once"}, "--system=other --once"),
        ({"kind": "model", "value": "claude-opus-4-8"}, "--model=claude-opus-4-8"),
        ({"kind": "set", "name": "model", "value": '"m"'}, "'--set=model=\"m\"'"),
        ({"kind": "fault", "value": "529"}, "--fault=529"),
        ({"kind": "resample"}, "--resample"),
        ({"kind": "text", "value": "x" * 200_000}, "--edit"),
    ],
)
def test_what_is_started_can_be_typed(page: Serve, tmp_path: Path, form: dict[str, str], words: str) -> None:
    """The command has the change in its own flags, and the store."""
    run_id = record(tmp_path)
    made = page(tmp_path, allow_run=True, budget_usd=9)
    where = posted(made, f"/run/{run_id}/step/0/fork", **form).headers["hx-redirect"]
    job = made.page.jobs.get(where.rpartition("/")[2])
    assert job is not None
    assert words in job.command
    assert job.command.endswith(f"--store {tmp_path}")
    made.page.jobs.close()
    assert "No such option" not in " ".join(job.said)
