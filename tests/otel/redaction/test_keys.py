"""Keys by their form: what is found of each kind, and what is wrongly taken for one."""

from __future__ import annotations

import json
import random
import re
import string
import sysconfig
import time
from pathlib import Path

import pytest

from tracefork_otel.redaction.bodies import rewrite
from tracefork_otel.redaction.growth import growth
from tracefork_otel.redaction.keys import FORMS, PAIRS, forms, without_keys
from tracefork_otel.redaction.names import environment
from tracefork_otel.redaction.reading import from_json, of_keys
from tracefork_otel.redaction.redact import Redactor

ALNUM, HEX, UPPER = (
    string.ascii_letters + string.digits,
    "0123456789abcdef",
    string.ascii_uppercase + "234567",
)
SHAPES = (
    # As public scanners' rules tell them: what stands there, and how much of which characters follows.
    *(
        "sk-ant-api03-{w93}AA",
        "sk-ant-admin01-{w93}AA",
        "sk-proj-{w74}T3BlbkFJ{w74}",
        "sk-svcacct-{w60}",
        "sk-{a48}",
    ),
    *(
        "sk-or-v1-{h64}",
        "gsk_{a52}",
        "xai-{a80}",
        "pplx-{a48}",
        "r8_{a37}",
        "nvapi-{w64}",
        "lsv2_pt_{h32}_{h10}",
    ),
    *(
        "pcsk_{a69}",
        "tvly-{a32}",
        "hf_{a34}",
        "AKIA{u16}",
        "ASIA{u16}",
        "AIza{w35}",
        "ya29.{w100}",
        "GOCSPX-{w28}",
    ),
    *(
        "AccountKey={a86}==",
        "dop_v1_{h64}",
        "dapi{h32}",
        "hvs.{w90}",
        "{a14}.atlasv1.{w64}",
        "pul-{h40}",
        "dp.pt.{a43}",
    ),
    *(
        "tskey-auth-{a12}-{a32}",
        "sbp_{h40}",
        "pscale_tkn_{a43}",
        "ghp_{a36}",
        "gho_{a36}",
        "ghs_{a36}",
        "ghu_{a36}",
    ),
    *(
        "ghr_{a76}",
        "github_pat_{a22}_{a59}",
        "glpat-{w20}",
        "glptt-{h40}",
        "npm_{a36}",
        "pypi-AgEIcHlwaS5vcmc{w80}",
    ),
    *(
        "rubygems_{h48}",
        "dckr_pat_{w27}",
        "xoxb-{d12}-{d12}-{a24}",
        "xoxp-{d12}-{d12}-{h32}",
        "xapp-1-{u10}-{d12}-{h64}",
    ),
    *(
        "https://hooks.slack.com/services/T{u10}/B{u10}/{a24}",
        "{d9}:AA{w33}",
        "SG.{w22}.{w43}",
        "key-{h32}",
        "SK{h32}",
    ),
    *(
        "sk_live_{a24}",
        "rk_live_{a24}",
        "sk_test_{a24}",
        "whsec_{a32}",
        "sq0atp-{w22}",
        "sq0csp-{w43}",
        "shpat_{h32}",
    ),
    *(
        "lin_api_{a40}",
        "ntn_{a46}",
        "ATATT3{w180}",
        "figd_{w40}",
        "PMAK-{h24}-{h34}",
        "pat{a14}.{h64}",
        "glsa_{a32}_{h8}",
    ),
    *("sntryu_{h64}", "NRAK-{u27}", "phc_{a43}", "eyJ{w30}.eyJ{w60}.{w43}", "AGE-SECRET-KEY-1{u58}"),
    "-----BEGIN RSA PRIVATE KEY-----\n{a64}\n{a64}==\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN OPENSSH PRIVATE KEY-----\\n{a70}\\n{a40}=\\n-----END OPENSSH PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{a64}\n",
)
KINDS = {"a": ALNUM, "h": HEX, "u": UPPER, "w": ALNUM + "_-", "d": string.digits}
PLAIN = (
    *(
        "application/json; charset=utf-8",
        "anthropic-version 2023-06-01",
        "gpt-4o-mini-2024-07-18",
        "claude-sonnet-4-5",
    ),
    *(
        "msg_01XFDUDYJgAACzvnptvVoYEL",
        "toolu_01A09q90qw90lq917835lq9",
        "chatcmpl-9bKxYz0Jr5mQb5f7Z0pUQHqLb3cWn",
    ),
    *(
        "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
        "call_DdmO9pD3xa9XTPNJ32zg2hcA",
        "run_abc123abc123abc123",
    ),
    *("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "550e8400-e29b-41d4-a716-446655440000"),
    *('W/"5e8a1b0f2c3d4e5f6a7b8c9d0e1f2a3b"', "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="),
    *(
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "scikit-learn-1.5.0-cp311-manylinux_x86_64",
    ),
    *(
        "/repos/octocat/hello-world/commits/6dcb09b5b57875f334f61aebed695e2e4193db5e",
        "task-sk-management-board",
    ),
    *(
        "sk-learn-pipeline",
        "hf_hub_download",
        "npm_config_registry",
        "pypi-server",
        "eyJhbGciOi is how they begin",
    ),
    *(
        "https://h/deployments/sk-team-gpt-4o-mini-prod/chat",
        "-----BEGIN CERTIFICATE-----\nMIIB",
        "AKIA is a prefix",
    ),
    *(
        "ghp_ or gho_ before 36 letters",
        "monkey-0123456789abcdef0123456789abcdeg",
        "xoxo-hugs",
        "SG.com.example.host",
    ),
)


def samples(seed: int = 1) -> list[str]:
    """A key of each shape."""
    drawn = random.Random(seed)
    fill = lambda found: "".join(drawn.choices(KINDS[found[1]], k=int(found[2])))  # noqa: E731
    return [re.sub(r"\{([ahuwd])(\d+)\}", fill, shape) for shape in SHAPES]


@pytest.mark.parametrize("form", [*(form for _, _, form in FORMS), *PAIRS])
def test_every_form_is_linear(form: str) -> None:
    """What looks for keys holds nobody up."""
    assert growth(re.compile(form)).linear


def test_every_form_names_what_stands_in_it() -> None:
    """A form is looked for where one of its texts is, so each of its keys has one."""
    for key in samples():
        for anchors, form in forms():
            if form.search(key):
                assert any(anchor in key for anchor in anchors), (key, anchors)


def test_keys_of_each_kind_are_found() -> None:
    """In a header, a URL, a command line, an environment and an error."""
    redactor = Redactor()
    missed: list[str] = []
    for seed in range(20):
        for key in samples(seed):
            inner = key[12:30] if len(key) > 40 else key[8:]
            line = key.replace("\n", " ")
            shown = (
                without_keys(f"see {key}, or not", "REDACTED"),
                redactor.request("GET", "https://h/", [(b"x-note", line.encode())], b"").headers[0][1],
                redactor.error(f"refused: '{key}' is no good"),
                " ".join(redactor.command(["agent", line])),
                json.dumps(environment({"PLAIN": key})[0]),
            )
            if any(inner in text for text in shown):
                missed.append(key)
            if "\n" not in key and "://" not in key and inner in redactor.url(f"https://h/a/{key}/b?x={key}"):
                missed.append(key)
    every = len(SHAPES) * 20
    print(f"keys found: {every - len(missed)} of {every} of {len(SHAPES)} shapes, {len(FORMS)} forms")
    assert missed == []


def test_what_is_no_key_stays() -> None:
    """Ids, digests, names of models and hosts, and Python's own library are left as they are."""
    assert [text for text in PLAIN if without_keys(text, "REDACTED") != text] == []
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    texts = [path.read_text(errors="replace") for path in files]
    begun = time.thread_time()
    changed = [path.name for path, text in zip(files, texts, strict=True) if without_keys(text, "") != text]
    size = sum(map(len, texts)) / 1e6
    print(
        f"wrongly replaced: {len(changed)} in {size:.1f} MB, {(time.thread_time() - begun) / size:.2f} s/MB"
    )
    assert changed == []


def test_bodies_are_one_setting_away() -> None:
    """With it keys in any text, and the members that hold one in MCP's and OAuth's bodies, become digests."""
    rules = from_json(of_keys().source)
    assert rules == of_keys()
    for key in samples():
        for side in ("request", "response"):
            found = rewrite(
                rules, side, json.dumps({"messages": [f"my key is {key}."]}).encode(), media="", coding=""
            )
            assert found is not None, key
            assert (key[12:30] if len(key) > 40 else key[8:]) not in found.body.decode(), key
            assert set(found.counts) == {"keys"}
    known = {
        "mcp_servers": [{"authorization_token": "KEY"}],
        "tools": [{"type": "mcp", "authorization": "KEY", "headers": {"X": "KEY"}}],
        "access_token": "KEY",
    }
    for body in (json.dumps(known), "grant_type=x&client_secret=KEY&code=1"):
        found = rewrite(rules, "request", body.encode(), media="", coding="")
        assert found is not None
        assert b"KEY" not in found.body
    for text in ("[INFO] using sk-ant-api03-abcdefghij0123456789ABCDEFGH now", "{AKIAIOSFODNN7EXAMPLE}"):
        found = rewrite(rules, "request", text.encode(), media="text/plain", coding="")
        assert found is not None
        assert found.counts == {"keys": 1}
    plain = json.dumps({"messages": [*PLAIN], "max_tokens": 5}).encode()
    assert rewrite(rules, "request", plain, media="", coding="") is None
