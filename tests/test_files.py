"""Reading files that may be anything: only regular ones of bounded size, without waiting and without much memory."""

import os
import socket
import tracemalloc

import pytest

from xlogreg.errors import InputError
from xlogreg.system.files import open_regular, read_regular


def test_a_regular_file_is_read_up_to_its_limit(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with open_regular(path) as file:
        assert file.read() == b"12345"
        assert not os.get_inheritable(file.fileno())
    assert read_regular(path, 5) == read_regular(str(path), 1 << 40) == b"12345"
    with pytest.raises(InputError, match="file is larger than the 4 bytes"):
        read_regular(path, 4)
    path.write_bytes(b"")
    assert read_regular(path, 0) == b""


def test_a_large_limit_asks_for_no_memory(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(25_000))
    tracemalloc.start()
    try:
        read_regular(path, 1 << 36)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    names = []
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo")
        names.append(tmp_path / "fifo")
    names += [name for name in ("/dev/zero", "/dev/null") if os.path.exists(name)]
    for name in names:
        for read in (open_regular, lambda name: read_regular(name, 10)):
            with pytest.raises(InputError, match=f"{name} is no regular file"):
                read(name)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "missing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="socket"):
            open_regular(tmp_path / "socket")


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="no /proc")
def test_a_file_that_does_not_say_its_size_is_bounded_too():
    assert b"Name:" in read_regular("/proc/self/status", 1 << 20)
    with pytest.raises(InputError, match="larger"):
        read_regular("/proc/self/status", 10)
