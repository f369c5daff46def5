"""Redaction as a user types it: recorded, shown, replayed and forked, with the secrets on the wire alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet
import pytest
from e2e.command import asking
from tracefork_backend.simulate import ModelServer

from tracefork_otel.store.wal import wal_files
from tracefork_otel.store.wal_reading import read_wal

RULES = r"""
salt = "a salt of our own"

[[rule]]
name = "emails"
pattern = '[\w.+-]+@[\w-]+\.[a-z]+'
replace = "EMAIL"

[[rule]]
header = "x-tenant"
digest = true

[[rule]]
json = "metadata.user_id"
in = "request"
digest = true
"""
AGENT = """
import sys, anthropic, tracefork_otel

@tracefork_otel.tool
def look_up(who: str) -> dict:
    return {"mail": f"{who}.doe@example.com"}

client = anthropic.Anthropic(default_headers={"x-tenant": "secret-tenant"})
messages = []
for turn in range(3):
    mail = look_up(f"john{turn}")["mail"]
    messages.append({"role": "user", "content": f"turn {turn}: write to {mail} about all of it please"})
    asked = dict(model="claude-opus-5", max_tokens=99, messages=messages, metadata={"user_id": "secret-user"})
    if turn == 1:
        with client.messages.stream(**asked) as stream:
            text = stream.get_final_text()
    else:
        text = client.messages.create(**asked).content[0].text
    messages.append({"role": "assistant", "content": text})
print("done", sys.argv[1:])
"""
SECRETS = ("doe@", "secret-tenant", "secret-user", "jane@")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an agent and rules in it."""
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "rules.toml").write_text(RULES)
    return tmp_path


def leaked(store: Path) -> list[tuple[str, str]]:
    """Where in the store a secret stands, if one does."""
    rows = [
        (path.name, repr(row))
        for path in store.rglob("*.parquet")
        for row in pyarrow.parquet.read_table(path).to_pylist()
    ]
    rows += [(path.name, repr(record)) for path in wal_files(store) for record in read_wal(path).records]
    assert rows
    return [(name, secret) for name, text in rows for secret in SECRETS if secret in text]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [False, True])
def test_run_replay_fork(folder: Path, server: ModelServer, proxy: bool) -> None:
    """The store never has what the rules replace, the provider always has; the replay is exact."""
    argv = [
        "run",
        *(["--proxy"] if proxy else []),
        "--redact",
        "rules.toml",
        "--",
        sys.executable,
        "agent.py",
    ]
    recorded = asking(folder, server, *argv, "jane@example.com")
    assert (recorded.status, recorded.out) == (0, "done ['jane@example.com']\n"), recorded.err
    assert b"john2.doe@example.com" in server.requests[-1].body
    assert b"secret-user" in server.requests[-1].body
    shown = asking(folder, server, "show", "last")
    assert "3 exchanges redacted: emails ×12, header x-tenant ×3, json metadata.user_id ×3" in shown.out
    step = json.loads(asking(folder, server, "show", "last@1", "--json").out)
    assert step["redacted"]["response"] == {"emails": 1}
    run = asking(folder, server, "ls", "--json").rows[-1]["run_id"]
    (folder / "rules.toml").unlink()  # a replay has the rules from the run
    forked = asking(folder, server, "fork", f"{run}@2", "--set", "temperature=0.5", "--json")
    assert forked.status == 0, forked.err
    assert b"0.5" in server.requests[-1].body
    assert b"secret-user" in server.requests[-1].body
    server.close()
    replayed = asking(folder, server, "replay", run)
    assert replayed.out.splitlines()[-1] == "PASS    bit-exact", replayed.out + replayed.err
    assert "note    redacted: replay serves replaced values" in replayed.out
    assert leaked(folder / ".tracefork") == []


@pytest.mark.slow
def test_a_fork_whose_change_a_rule_replaces_is_refused_by_name(folder: Path, server: ModelServer) -> None:
    """Any other change is made again, also in a fork of the fork; none of the replaced values is kept."""
    recorded = asking(folder, server, "run", "--redact", "rules.toml", "--", sys.executable, "agent.py", "x")
    assert recorded.status == 0, recorded.err
    run = asking(folder, server, "ls", "--json").rows[-1]["run_id"]

    def forked(ref: str, *words: str) -> str:
        (made,) = asking(folder, server, "fork", ref, *words, "--json").rows
        assert (made["problem"], made["reconverged_at"]) == (None, None)
        return str(made["run_id"])

    shown = forked(f"{run}@1", "--set", "temperature=0.5")
    hidden = forked(f"{run}@1", "--set", "metadata.user_id=doe@secret-user")
    both = forked(f"{shown}@2", "--text", "no more")
    server.close()
    for fork in (shown, both):
        assert asking(folder, server, "replay", fork).out.endswith("PASS    bit-exact\n")
    why = "the change is not kept: a rule of redaction replaces it in a request (json metadata.user_id)"
    refused = f"{why}; fork {run[:8]}@1"
    asking(folder, server, "replay", hidden).refused(hidden[:8], "cannot be replayed", refused)
    asking(folder, server, "fork", f"{hidden}@2", "--noop").refused("cannot be forked", refused)
    assert leaked(folder / ".tracefork") == []


@pytest.mark.slow
def test_wrong_rules_start_nothing(folder: Path, server: ModelServer) -> None:
    """`run --redact` with a file that is wrong, and TRACEFORK_REDACT with one that is missing, end with 2."""
    (folder / "wrong.toml").write_text("[[rule]]\npatern = 'x'\n")
    wrong = asking(folder, server, "run", "--redact", "wrong.toml", "--", sys.executable, "agent.py")
    missing = asking(folder, server, "run", "--", sys.executable, "agent.py", TRACEFORK_REDACT="no.toml")
    assert (wrong.status, missing.status) == (2, 2)
    assert "wrong.toml: rule 1: unknown key 'patern'" in wrong.err
    assert "no.toml cannot be read" in missing.err
    assert server.requests == []
    assert not (folder / ".tracefork").exists()
