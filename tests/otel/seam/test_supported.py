"""A version of httpx that the recorder does not fit works as ever, and the log and the store say so."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest
from recorded import launched, read_store, run_python

OLD = {
    "renamed": ("_send_single_request", "send_single_request", "has no _send_single_request"),  # before 0.13
    "parameter": (
        "_send_single_request(self, request: Request)",
        "_send_single_request(self, request: Request, timeout: object)",
        "does not take one request",
    ),  # before 0.20
}
"""How the seam's method was in versions of old: what to put for what, and what is said of it."""


@pytest.mark.slow
@pytest.mark.parametrize(("change", "line"), [("renamed", True), ("parameter", False)])
def test_an_old_version_is_said_not_crashed(change: str, line: bool, tmp_path: Path, raw: str) -> None:
    """The call is made and answered, nothing is recorded, and one line names the version and what to type."""
    now, then, said = OLD[change]
    library = tmp_path / "old" / "httpx"
    shutil.copytree(Path(httpx.__file__).parent, library, ignore=shutil.ignore_patterns("__pycache__"))
    client = library / "_client.py"
    source = client.read_text()
    assert now in source
    source = source.replace(now, then)
    if change == "parameter":
        source = source.replace("_send_single_request(request)", "_send_single_request(request, None)")
    client.write_text(source)
    version = library / "__version__.py"
    version.write_text(version.read_text().replace(httpx.__version__, "0.0.7"))
    code = f"""
import sys; sys.path.insert(0, {str(library.parent)!r})
import httpx, asyncio
{"from tracefork_otel import TraceforkInstrumentor; TraceforkInstrumentor().instrument()" if line else ""}
print(httpx.get("{raw}/status/200").status_code)
async def main():
    async with httpx.AsyncClient() as client:
        print((await client.get("{raw}/status/200")).status_code)
asyncio.run(main())
"""
    done = run_python(code, store=tmp_path / "store", **({} if line else launched()))
    assert done.stdout == "200\n200\n"
    assert done.stderr.count("\n") == 1  # and not besides that nothing was captured
    assert "httpx 0.0.7 is not captured" in done.stderr
    assert said in done.stderr
    assert "pip install -U httpx" in done.stderr
    recorded = read_store(tmp_path / "store")
    assert not recorded.exchanges
    (note,) = recorded.notes
    assert note.kind == "incomplete"
    assert "httpx 0.0.7" in str(note.attributes["why"])
