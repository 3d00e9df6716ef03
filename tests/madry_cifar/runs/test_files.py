"""Files that are whole or not there, also when the disk is full."""

import contextlib
import fcntl
import json
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import pytest

from madry_cifar.runs import files


@pytest.fixture
def full_disk():
    """full_disk(path): what is written in place of `path` under its temporary name goes to a device that is full."""
    if not pathlib.Path("/dev/full").is_char_device():
        pytest.skip("no /dev/full here")

    def full_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{os.getpid()}.{path.name}").symlink_to("/dev/full")

    return full_disk


@contextlib.contextmanager
def small_files():
    """No file of this process can grow beyond 4,096 bytes, the one that the tests report to included."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, size):
    """A file that is larger than `size` bytes, by its ending."""
    numbers = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    if path.suffix == ".json":
        files.write_json(path, numbers.tolist())
    else:
        files.write_array(path, {".npz": np.savez_compressed, ".npy": np.save}[path.suffix], numbers)
    return numbers


def read(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    content = np.load(path, allow_pickle=False)
    return (content if path.suffix == ".npy" else content["arr_0"]).tolist()


ENDINGS = pytest.mark.parametrize("ending", [".json", ".npz", ".npy"])


@ENDINGS
def test_a_file_in_a_new_folder(tmp_path, ending):
    path = tmp_path / "new" / "folder" / f"a{ending}"
    assert read_after(write(path, 100), path)
    assert names(path.parent) == [path.name]


def read_after(numbers, path):
    return read(path) == numbers.tolist()


@ENDINGS
def test_a_full_disk_leaves_what_there_was(tmp_path, full_disk, ending):
    path = tmp_path / f"a{ending}"
    before = write(path, 100)
    full_disk(path)
    with pytest.raises(OSError, match=r"[Nn]o.* space") as raised:
        write(path, 20_000)
    assert raised.value.filename == str(path)
    assert names(tmp_path) == [path.name]
    assert read_after(before, path)


@ENDINGS
def test_a_write_that_fails_halfway_leaves_what_there_was(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    before = write(path, 100)
    with pytest.raises(OSError) as raised, small_files():  # noqa: PT011 (NumPy has another message than Python)
        write(path, 20_000)
    assert raised.value.filename == str(path)
    assert names(tmp_path) == [path.name]
    assert read_after(before, path)


def test_what_a_killed_process_left_is_removed(tmp_path):
    path = tmp_path / "a.json"
    writer = subprocess.Popen(["sleep", "3600"])
    others = [tmp_path / f".{writer.pid}.{name}" for name in ("a.json", "b.json")] + [tmp_path / ".text.a.json"]
    for other in others:
        other.touch()
    files.write_json(path, 1)
    assert names(tmp_path) == sorted([path.name, *(other.name for other in others)])  # it is still writing
    writer.kill()
    writer.wait()
    files.write_json(path, 2)
    assert names(tmp_path) == sorted([path.name, *(other.name for other in others[1:])])


def test_what_is_no_json_leaves_what_there_was(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, [1])
    with pytest.raises(TypeError):
        files.write_json(path, [object()])
    assert names(tmp_path) == ["a.json"]
    assert read(path) == [1]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"a\.json"):
        files.write_json(tmp_path / "file" / "a.json", [1])


def test_one_process_at_a_time(tmp_path):
    """While another process is alone in the folder, nobody else can take its lock; when it is killed, all can."""
    program = "import pathlib, sys, time; from madry_cifar.runs import files\n"
    program += "with files.alone(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(3600)"
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path / "new"], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "in\n"
    with (tmp_path / "new" / ".lock").open("w") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    other.kill()
    other.communicate()
    with files.alone(tmp_path / "new"):
        pass


def test_who_waits_says_so(tmp_path):
    program = "import pathlib, sys; from madry_cifar.runs import files\n"
    program += "with files.alone(pathlib.Path(sys.argv[1])): print('in', flush=True)"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with files.alone(tmp_path):
        other = subprocess.Popen([sys.executable, "-c", program, tmp_path], **pipes)
        assert other.stderr.readline() == f"waiting for another command that works in {tmp_path}\n"
        assert other.poll() is None
    assert other.communicate() == ("in\n", "")
