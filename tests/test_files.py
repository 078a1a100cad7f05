"""Files that are whole or not there."""

import errno
import os

import pytest
from char_model import main as char_lm

from jrnn.files import naming, write_whole
from jrnn.text import read_blocks


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


def test_two_writers_of_one_file_do_not_meet(tmp_path, monkeypatch):
    """While one has written, another writes all of its own: the last to end is there, whole."""
    path = tmp_path / "file"
    fsync = os.fsync

    def meanwhile(descriptor):
        monkeypatch.setattr(os, "fsync", fsync)
        write_whole(path, b"other")
        assert path.read_bytes() == b"other"

    monkeypatch.setattr(os, "fsync", meanwhile)
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("name", ["a" * 255, "\N{GRINNING FACE}" * 63], ids=["a", "4 bytes"])
def test_a_name_may_be_as_long_as_the_file_system_takes(name, tmp_path):
    write_whole(tmp_path / name, b"content")
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("place", ["nowhere/file", "a_file/file", "a_directory"])
def test_an_error_names_the_file(place, tmp_path):
    (tmp_path / "a_file").touch()
    (tmp_path / "a_directory").mkdir()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OSError, match=place) as caught:
        write_whole(tmp_path / place, b"content")
    assert caught.value.filename == str(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_pipe_is_not_replaced(tmp_path):
    """Nor /dev/null, which root could replace by a file for the whole machine."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="expected a regular file; got a device, a pipe or a socket"):
        write_whole(tmp_path / "pipe", b"new")
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]


def test_an_error_of_a_read_names_the_file():
    unreadable = "/proc/self/mem"  # at its start, which is mapped nowhere
    with pytest.raises(OSError, match="Input/output error") as caught:
        list(read_blocks([unreadable]))
    assert caught.value.filename == unreadable


def test_an_error_keeps_its_kind_and_says_what_was_done():
    with (
        pytest.raises(BrokenPipeError, match=r"Broken pipe, doing: 'name'"),
        naming("name", ", doing"),
    ):
        raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
    with pytest.raises(OSError, match="no number: 'name'"), naming("name"):
        raise OSError("no number")


def test_the_example_refuses_a_path_that_is_not_utf8_before_it_makes_anything(tmp_path, capsys):
    out = tmp_path / os.fsdecode(b"\xff")
    assert char_lm.main(["--out", str(out)]) == 1
    assert r"--out: expected a path in UTF-8; got '" in capsys.readouterr().err
    assert not out.exists()
