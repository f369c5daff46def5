"""A file is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracefork_otel.files import own_folder, replacing, write_whole


def test_a_file_takes_the_place_of_the_old_one_for_its_owner_alone(tmp_path: Path) -> None:
    """What was written stands there with mode 0600, and nothing else is left in the folder."""
    path = tmp_path / "file"
    path.write_bytes(b"before, and longer")
    path.chmod(0o644)
    write_whole(path, b"after")
    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_the_umask_changes_nothing(tmp_path: Path, umask: int) -> None:
    """Files are for their owner alone, and he can read them, whatever the agent's umask is."""
    before = os.umask(umask)
    try:
        own_folder(tmp_path / "folder")
        write_whole(tmp_path / "folder" / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "folder" / "file").stat().st_mode & 0o777 == 0o600


def test_a_folder_is_no_link(tmp_path: Path) -> None:
    """A link to a folder elsewhere is refused, and a folder that is there is taken."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    own_folder(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError, match="no link"):
        own_folder(tmp_path / "link")


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_what_raises_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever ends the writing, the old file stays, and no half of the new one."""
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
