"""Files that are whole or not there."""

import os

import pytest

from jrnn.files import write_whole


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"", b"three" * 100_000):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert os.listdir(tmp_path) == ["file"]


def test_the_file_behind_a_link_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_whole(tmp_path / "link", b"content")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize("place", ["nowhere/file", "a_file/file", "a_directory"])
def test_an_error_names_the_file(place, tmp_path):
    (tmp_path / "a_file").touch()
    (tmp_path / "a_directory").mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match=place) as caught:
        write_whole(tmp_path / place, b"content")
    assert caught.value.filename == str(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == before
