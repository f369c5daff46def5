"""Under `--draws` an installed program is the agent's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracefork_otel.draws import drawing
from tracefork_otel.draws.program import own_packages
from tracefork_otel.tape.reads import Draw
from tracefork_otel.tape.start import CALLED

PIP = (
    "#!python\nimport re, sys\nfrom {module} import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
)
UV = "#!python\nimport sys\nfrom {module} import cli\nif __name__ == '__main__':\n    sys.exit(cli.start())\n"
PLAIN = "import sys, {module}\nraise SystemExit({module}.main())\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packages `cliapp` and `space.tool`, the latter in a folder that several share."""
    for name in ("cliapp", "space/tool"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


@pytest.mark.parametrize("wrapper", [PIP, UV, PLAIN])
def test_a_command_that_was_installed(wrapper: str, installed: Path) -> None:
    """The package of the function that the command's script calls, however it was written."""
    script = installed / "app"
    script.write_text(wrapper.format(module="cliapp"))
    assert own_packages([sys.executable, str(script), "--help"]) == ("cliapp",)


def test_a_module_that_is_started(installed: Path) -> None:
    """`-m` names it; of packages that share a folder it is the one."""
    assert own_packages(["python3", "-X", "dev", "-m", "cliapp.start", "x"]) == ("cliapp",)
    script = installed / "tool"
    script.write_text(PIP.format(module="space.tool.cli"))
    assert own_packages(["python", str(script)]) == ("space.tool",)


@pytest.mark.parametrize("called", CALLED)
@pytest.mark.parametrize("recorded_as", ["cliapp.cli", "app", "agent.py", "-c", "python"])
def test_a_function_that_is_called_in_a_replay(called: str, recorded_as: str, installed: Path) -> None:
    """Its package is the agent's own where it was so in the recording: not where a script called it."""
    own = () if recorded_as in ("agent.py", "-c", "python") else ("cliapp",)
    assert own_packages(["python", "-m", called, "cliapp.cli:main"], recorded_as) == own
    assert own_packages(["python", "-m", "cliapp", "cliapp.cli:main"], recorded_as) == ("cliapp",)


@pytest.mark.parametrize("recorded_as", ["cliapp", "agent.py"])
def test_an_import_before_any_session_counts_as_the_recording(
    recorded_as: str, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what a process draws that imports the function once for many forks."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", CALLED[0], "cliapp.cli:main"])
    monkeypatch.setattr(drawing, "_present", None)
    recorded = (Draw(process=f"{recorded_as}:0#0", lane="", source="time", site="x", line=1, value=1.0),)
    drawing.prepare(recorded, ("more",), ())
    present = drawing._present
    assert present is not None
    try:
        assert ("cliapp" in present.deck.scope.include) == (recorded_as == "cliapp")
        assert "more" in present.deck.scope.include
    finally:
        present.stop()


@pytest.mark.parametrize(
    "code",
    [
        "import cliapp\ncliapp.main()\n",
        "import sys\nfrom cliapp import main\ndef run(): return main()\nsys.exit(run())\n",
        "import sys\nsys.exit(0)\n",
        "def (",
    ],
)
def test_a_script_of_ones_own(code: str, installed: Path) -> None:
    """It is the agent's own code already, and what it imports is a library."""
    script = installed / "agent.py"
    script.write_text(code)
    assert own_packages(["python", str(script)]) == ()


@pytest.mark.parametrize(
    "argv", [["python", "-m", "pytest"], ["python", "-c", "1"], ["python"], ["python", "nowhere.py"]]
)
def test_what_runs_others(argv: list[str]) -> None:
    """A runner's own draws are none of the agent's."""
    assert own_packages(argv) == ()
