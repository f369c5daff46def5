"""Which modules of the user's own a file imports."""

from __future__ import annotations

from pathlib import Path

import pytest
from tracefork_backend.grading import imported
from tracefork_backend.grading.imported import own_modules


def write(root: Path, files: dict[str, str]) -> None:
    """The files stand below the root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_own_modules_are_found_by_every_form_of_import(tmp_path: Path) -> None:
    """Also in a folder without an `__init__.py`, and inside functions; libraries are none."""
    write(
        tmp_path,
        {
            "of_imports/__init__.py": "from of_imports import checks\n",
            "of_imports/checks.py": "import json, pytest\nfrom . import near\nfrom .sub import deep as d\n"
            "from ..nothing import x\nimport of_imports_flat.inner as i\n",
            "of_imports/near.py": "def f():\n    import of_imports_lazy\n",
            "of_imports/sub/__init__.py": "",
            "of_imports/sub/deep.py": "from ..near import *\nfrom .. import checks\n",
            "of_imports_flat/inner.py": "this is no Python",
            "of_imports_lazy.py": "raise SystemExit('never run')\n",
            "of_imports_not.py": "",
        },
    )
    found = own_modules(tmp_path / "of_imports" / "checks.py", "of_imports.checks")
    assert {name: str(path.relative_to(tmp_path)) for name, path in found.items()} == {
        "of_imports": "of_imports/__init__.py",
        "of_imports.near": "of_imports/near.py",
        "of_imports.sub": "of_imports/sub/__init__.py",
        "of_imports.sub.deep": "of_imports/sub/deep.py",
        "of_imports_flat.inner": "of_imports_flat/inner.py",
        "of_imports_lazy": "of_imports_lazy.py",
    }


def test_no_more_files_than_the_limit_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest go first; a library's file imports nothing of the user's."""
    monkeypatch.setattr(imported, "LIMIT", 2)
    write(tmp_path, {f"of_chain_{at}.py": f"import of_chain_{at + 1}\n" for at in range(5)})
    assert list(own_modules(tmp_path / "of_chain_0.py", "of_chain_0")) == ["of_chain_1", "of_chain_2"]
    assert own_modules(Path(pytest.__file__), "pytest") == {}
