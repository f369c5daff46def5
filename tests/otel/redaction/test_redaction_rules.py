"""A user's redaction rules: what a file may say, and what bodies look like afterwards."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from growth_guard import soon
from hypothesis import given
from hypothesis import strategies as st

from tracefork_otel.errors import UsageError
from tracefork_otel.redaction.bodies import rewrite
from tracefork_otel.redaction.reading import from_json, load, parse
from tracefork_otel.redaction.redact import Redactor
from tracefork_otel.redaction.rules import Rules
from tracefork_otel.wire.codings import Unreadable
from tracefork_otel.wire.eventstream import frame

EMAIL = {"name": "emails", "pattern": r"[\w.]+@\w+\.com", "replace": "EMAIL"}


def rules(*told: dict[str, Any]) -> Rules:
    """The rules of these tables."""
    return parse({"rule": list(told)}, "rules.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rule]\n", "not TOML"),
        ("colour = 1\n", "unknown key 'colour'"),
        ("", r"no \[\[rule\]\]"),
        ("[[rule]]\nheder = 'x'\n", "rule 1: unknown key 'heder'"),
        ("[[rule]]\nname = 'x'\n", "exactly one of header, param, json, pattern"),
        ("[[rule]]\nheader = 'x'\nparam = 'y'\n", "exactly one of"),
        ("[[rule]]\npattern = '(a'\n", "pattern = '\\(a' is no regular expression"),
        ("[[rule]]\npattern = 'a*'\n", "matches the empty text"),
        (r"[[rule]]" + "\n" + r"pattern = '(\w+)+@'" + "\n", "exponential"),
        ("[[rule]]\npattern = 'x'\nreplace = 'y'\ndigest = true\n", "not both"),
        ("[[rule]]\npattern = 'a'\nreplace = 'aa'\n", "choose a `replace`"),
        ("[[rule]]\njson = 'a[b'\n", "is not a JSON path"),
        ("[[rule]]\nheader = 'x'\nin = 'reply'\n", "in = 'reply'"),
        ("[[rule]]\nheader = 7\n", "'header' must be text"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_key(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong is said in one line that names the file."""
    path = tmp_path / "rules.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(\w+)+@",
        r"(a|aa)+$",
        r"secret: (\w+\s?)+$",
        r"(?:\w+\.?)+@x",
        r"(a|b|ab)*c",
        r"(.*a){12}$",
        r"^(([a-z])+.)+[A-Z]([a-z])+$",
    ],
)
def test_a_pattern_of_exponential_time_is_refused(pattern: str) -> None:
    """However its repetitions overlap, a pattern that may never end is not taken."""
    with pytest.raises(UsageError, match="exponential"):
        rules({"pattern": pattern})


@pytest.mark.parametrize(
    "pattern", [r"(a+)+", r"\w+@\w+\.com", r"\b(?:\d[ -]*?){13,16}\b", r"sk-[A-Za-z0-9]{20,}", r"a.*b.*c.*d"]
)
def test_a_pattern_of_other_time_is_taken(pattern: str) -> None:
    """What merely looks like it, or takes the square of the time, is a pattern like any other."""
    assert rules({"pattern": pattern}).rules


def test_the_documented_patterns_take_no_long_words_amiss() -> None:
    """An encoded picture does not hold up the agent by the patterns of the example's file."""
    told = load(Path(__file__).parents[3] / "examples" / "redaction.toml")
    body = json.dumps({"messages": ["ab" * 100_000, "a." * 50_000 + "@", "a@" + "a" * 100_000]}).encode()
    with soon(0.3):
        assert rewrite(told, "request", body, media="application/json", coding="") is None


@pytest.mark.parametrize("sizes", [(), (100, 400_000)])
def test_what_is_found_often_is_replaced_in_one_walk(sizes: tuple[int, ...]) -> None:
    """Ten thousand numbers and as many mail addresses, each of its own, are text of the same size."""
    told = rules({"pattern": r"\d{5,}", "replace": "N"}, {"pattern": r"[a-z]+\d+@[a-z.]+", "replace": "M"})
    said = [100_000 + at for at in range(10_000)], [f"ada{at}@example.com" for at in range(10_000)]
    body = json.dumps({"twice": [said[1][0]], "said": said}).encode()
    with soon(0.15):
        made = rewrite(told, "request", body, media="application/json", coding="", sizes=sizes)
    assert made
    whole = json.dumps({"twice": ["M"], "said": [[0] * 10_000, ["M"] * 10_000]}).replace("0", '"N"')
    assert made.body.decode() == whole
    assert [*made.counts.values()] == [10_000, 10_001]
    assert sum(made.sizes) == (len(made.body) if sizes else 0)


EVENT = '{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"w{}"}}}}'


@pytest.mark.parametrize(
    "event", ["{{}}", "[]", EVENT, '{{"choices":[{{"index":0,"delta":{{"content":"w{}"}}}}]}}']
)
@pytest.mark.parametrize("media", ["text/event-stream", "application/x-ndjson", "text/plain"])
def test_many_small_events_take_a_moment(media: str, event: str) -> None:
    """A stream of ten thousand of them, in chunks of a few bytes, costs some microseconds for each."""
    told = rules({"pattern": r"(?<!\w)\w+@\w+", "replace": "M"}, {"json": "**.user.id"})
    field = "data: {}\n\n" if media == "text/event-stream" else "{}\n"
    events = [event.format(number) for number in range(10_000)]
    said = [field.format(one) for one in (*events, '{"user":{"id":"7","mail":"ada@x"}}')]
    body = "".join(said).encode()
    with soon(0.3):
        made = rewrite(told, "response", body, media=media, coding="", sizes=[len(one) for one in said])
    assert made
    assert [*made.counts.values()] == [1, 1]
    assert made.body == body.replace(b'"7"', b'"REDACTED"').replace(b"ada@x", b"M")
    assert made.sizes == (
        *map(len, said[:-1]),
        len(said[-1]) + len("REDACTED") - len("7") + len("M") - len("ada@x"),
    )


def test_deep_bodies_take_no_long_paths_amiss() -> None:
    """Thousands of brackets within each other are looked through by paths of any depth in a moment."""
    told = rules({"json": "**.user.id"}, {"json": "**.a.**.b"}, {"json": "**.x"})
    body = (b'{"a":[' * 2000) + b'{"b":"secret","x":1}' + b"]}" * 2000
    with soon(0.3):
        found = rewrite(told, "request", body, media="application/json", coding="")
    assert found is not None
    assert b"secret" not in found.body


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Rules that cannot be read are an error, not no rules."""
    with pytest.raises(UsageError, match=r"missing\.toml cannot be read"):
        load(tmp_path / "missing.toml")


def test_rules_come_back_from_their_json() -> None:
    """What a run carries makes the same rules again."""
    made = rules(EMAIL, {"json": "**.ssn", "digest": True, "in": "response"})
    assert from_json(made.source) == made


def test_json_keeps_every_other_byte() -> None:
    """Spacing, key order and numbers stay; keys, JSON within text and escapes are looked into."""
    body = b'{ "b" :1.50, "a@x.com":"caf\\u00e9 a\\u0040x.com \\"q\\"","n":"{\\"to\\":\\"a@x.com\\"}" }'
    found = rewrite(rules(EMAIL), "request", body, media="application/json", coding="")
    assert found is not None
    assert found.body == b'{ "b" :1.50, "EMAIL":"caf\xc3\xa9 EMAIL \\"q\\"","n":"{\\"to\\":\\"EMAIL\\"}" }'
    assert found.counts == {"emails": 3}


def test_json_paths_reach_values_of_any_kind() -> None:
    """A path's value becomes text whatever it was; `*` is one step, `**` any number of them."""
    told = rules(
        {"json": "**.ssn", "digest": True},
        {"json": "m[*].x", "replace": "-"},
        {"json": "top", "in": "response"},
    )
    body = json.dumps({"m": [{"x": {"deep": 1}}, {"y": {"ssn": 7}}], "top": "t"}).encode()
    found = rewrite(told, "request", body, media="", coding="")
    assert found is not None
    value = json.loads(found.body)
    assert value["m"][0] == {"x": "-"}
    assert value["m"][1]["y"]["ssn"].startswith("redacted-")
    assert value["top"] == "t"


def event(text: str, index: int = 0) -> dict[str, Any]:
    """A piece of a streamed answer."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def stream(*events: dict[str, Any]) -> list[bytes]:
    """The chunks of an event stream, one event each."""
    return [f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events]


def said(body: bytes, index: int = 0) -> str:
    """The streamed text of one block."""
    events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: ")]
    return "".join(one["delta"]["text"] for one in events if one["index"] == index)


def test_a_match_may_span_the_pieces_of_a_stream() -> None:
    """What comes in pieces is found as if it had come at once, blocks apart; each event keeps its chunk."""
    chunks = stream(event("mail jo"), event("ann@", 1), event("hn@x.c"), event("x.com", 1), event("om now"))
    found = rewrite(
        rules(EMAIL),
        "response",
        b"".join(chunks),
        media="text/event-stream",
        coding="",
        sizes=[len(chunk) for chunk in chunks],
    )
    assert found is not None
    assert (said(found.body), said(found.body, 1)) == ("mail EMAIL now", "EMAIL")
    assert sum(found.sizes) == len(found.body)
    at = 0
    for size in found.sizes:
        assert found.body[at : at + size].startswith(b"event: ")
        at += size
    assert len(found.sizes) == len(chunks)


@given(
    text=st.text(alphabet='ab@.com é"\\\n', max_size=40).map(lambda text: f"{text} a@b.com {text}"),
    cuts=st.lists(st.integers(0, 90), max_size=6),
)
def test_a_stream_says_what_the_whole_text_would(text: str, cuts: list[int]) -> None:
    """However an answer is cut into pieces, its redacted pieces make the redacted answer, and that stays."""
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]
    body = b"".join(stream(*(event(piece) for piece in pieces)))
    whole = json.dumps({"messages": [{"content": text}]}).encode()
    streamed = rewrite(rules(EMAIL), "response", body, media="text/event-stream", coding="")
    asked = rewrite(rules(EMAIL), "request", whole, media="application/json", coding="")
    assert streamed is not None
    assert asked is not None
    assert said(streamed.body) == json.loads(asked.body)["messages"][0]["content"]
    assert rewrite(rules(EMAIL), "request", asked.body, media="application/json", coding="") is None


@pytest.mark.parametrize("media", ["application/x-ndjson", ""])
def test_a_match_may_span_lines_of_json(media: str) -> None:
    """What Ollama's lines say in pieces is looked at as one text; paths are those of each line."""
    lines = [
        {"message": {"role": "assistant", "content": text}, "key": "k"} for text in ("ann@", "x.c", "om !")
    ]
    lines += [{"response": text} for text in ("bob", "@x.com")]
    parts = [json.dumps(one).encode() + b"\n" for one in lines]
    found = rewrite(
        rules(EMAIL, {"json": "key"}),
        "response",
        b"".join(parts),
        media=media,
        coding="",
        sizes=[len(part) for part in parts],
    )
    assert found is not None
    read = [json.loads(one) for one in found.body.splitlines()]
    assert len(read) == 5
    told = "".join(one["message"]["content"] for one in read[:3])
    assert "@" not in told
    assert told.endswith(" !")
    assert "@" not in read[3]["response"] + read[4]["response"]
    assert all(one["key"] != "k" for one in read[:3])
    assert sum(found.sizes) == len(found.body)


def test_an_event_of_a_strange_shape_is_text_all_the_same() -> None:
    """A stream whose events have lists and objects where names are expected is looked into."""
    strange = {"type": ["x"], "index": {"a": 1}, "delta": {"text": "a@x.com", "index": []}}
    body = f"data: {json.dumps(strange)}\n\n".encode()
    found = rewrite(rules(EMAIL), "response", body, media="text/event-stream", coding="")
    assert found is not None
    assert b'"EMAIL"' in found.body


@pytest.mark.parametrize("cut", [0, 20])
def test_compressed_bodies_are_compressed_again(cut: int) -> None:
    """A gzip body is looked into and stays gzip, one that was cut off stays cut off; it keeps its chunks."""
    plain = ("text a@x.com and more " * 20).encode()
    packed = gzip.compress(plain)[: -cut or None]
    found = rewrite(
        rules(EMAIL), "response", packed, media="text/plain", coding="gzip", sizes=[10, 10, len(packed) - 20]
    )
    assert found is not None
    assert (len(found.sizes), sum(found.sizes)) == (3, len(found.body))
    if cut:
        with pytest.raises(EOFError):
            gzip.decompress(found.body)
    else:
        assert gzip.decompress(found.body) == plain.replace(b"a@x.com", b"EMAIL")


@pytest.mark.parametrize(
    ("body", "media", "coding"),
    [
        (b"not gzip", "text/plain", "gzip"),
        (b"?", "text/plain", "rot13"),
        (b"<a>", "application/json", ""),
        (gzip.compress(b"a", mtime=0) + b"more", "text/plain", "gzip"),
        (frame({":event-type": "chunk"}, b'{"bytes":"YUB4LmNvbQ=="}'), "application/octet-stream", ""),
        (b"cut", "application/vnd.amazon.eventstream", ""),
    ],
    ids=["no gzip", "unknown", "no json", "more behind", "event stream", "cut event stream"],
)
def test_what_cannot_be_looked_into_is_not_passed(body: bytes, media: str, coding: str) -> None:
    """A body of an unknown or broken coding, and one that only claims to be JSON, is refused."""
    with pytest.raises(Unreadable):
        rewrite(rules(EMAIL, {"json": "a"}), "request", body, media=media, coding=coding)


def test_bytes_that_are_no_text_stay() -> None:
    """In a body that is not UTF-8 only the match changes."""
    body = bytes(range(128, 256)) + b" a@x.com " + bytes(range(128, 256))
    found = rewrite(rules(EMAIL), "request", body, media="multipart/form-data", coding="")
    assert found is not None
    assert found.body == body.replace(b"a@x.com", b"EMAIL")


def test_a_cut_json_body_is_still_looked_into() -> None:
    """The beginning of a JSON body, as a broken connection leaves it, has its values replaced."""
    body = b'{"id":"a@x.com","secret":"abc","t":"half of a@x.com and'
    found = rewrite(rules(EMAIL, {"json": "secret"}), "response", body, media="application/json", coding="")
    assert found is not None
    assert b"@" not in found.body
    assert b"abc" not in found.body


@pytest.mark.parametrize(
    ("text", "pattern", "kept"),
    [
        ("[INFO] token sk-live-ABC123 ok", r"sk-live-\w+", "[INFO] token REDACTED ok"),
        ("[4111 1111 1111 1111]", r"\d{4} \d{4} \d{4} \d{4}", "[REDACTED]"),
        ('[{"a":"sk-live-ABC123"},[sk-live-ABC123]]', r"sk-live-\w+", '[{"a":"REDACTED"},[REDACTED]]'),
        ("[12:34:56:78]", r"\d\d:\d\d:\d\d:\d\d", "[REDACTED]"),
        ("{555-12,34}", r"\d+-\d+,\d+", "{REDACTED}"),
        ("[1][2] {hunter}", r"1\]\[2", "[REDACTED] {hunter}"),
        ('["a" secret]', "secret", '["a" REDACTED]'),
        ("[true secret", "true secret", "[REDACTED"),
        ("[s", "s", "[REDACTED"),
        ("{password}", "password", "{REDACTED}"),
    ],
)
def test_text_in_brackets_is_text(text: str, pattern: str, kept: str) -> None:
    """What begins like JSON and is none is looked at as it stands, in bodies and in texts."""
    told = rules({"pattern": pattern})
    found = rewrite(told, "request", text.encode(), media="text/plain", coding="")
    assert found is not None
    assert found.body.decode() == kept
    assert Redactor(rules=told).text(text) == kept


NESTED = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text('k\t"\\ ', max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("k:", max_size=2), inner, max_size=3),
)
WORDS = st.sampled_from(
    ["INFO", "12", "-3e4", "true", "tru", "nul", '"said"', "a-b", "[", "]", "{", "}", ":", ",", " "]
)


@given(st.sampled_from("[{"), st.lists(WORDS, max_size=8), st.lists(WORDS, max_size=4))
def test_a_word_anywhere_in_brackets_is_found(opened: str, before: list[str], after: list[str]) -> None:
    """Whatever stands around a key, JSON or not, it goes."""
    text = f"{opened}{''.join(before)}sk-live-ABC123{''.join(after)}"
    assert "ABC" not in Redactor(rules=rules({"pattern": r"sk-live-\w+"})).text(text)


@given(NESTED, st.sampled_from([None, 1]), st.floats(0, 1))
def test_json_is_looked_at_by_its_values_however_it_is_cut(
    value: Any, indent: int | None, cut: float
) -> None:
    """Whole or cut anywhere, JSON is seen as such: what is escaped in it is found."""
    text = json.dumps(["\t@k", value], indent=indent)
    text = text[: max(text.index(",") + 1, int(len(text) * cut))]
    assert "@k" not in Redactor(rules=rules({"pattern": r"\t@k"})).text(text)
