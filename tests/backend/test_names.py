"""The names that Python users of the backend call."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tracefork_backend


@pytest.mark.parametrize("name", tracefork_backend.__all__)
def test_every_public_name_has_a_home(name: str) -> None:
    """A name that is offered is found in the module that it is said to come from."""
    assert getattr(tracefork_backend, name) is not None


def test_a_star_brings_all_of_them() -> None:
    """In a process where nothing was imported before."""
    code = "from tracefork_backend import *; print(sorted(name for name in globals() if name[0] != '_'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr(sorted(tracefork_backend.__all__))
