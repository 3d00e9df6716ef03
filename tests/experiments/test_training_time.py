"""How long a run was trained, from event files with chosen times."""

import pytest
import tensorflow as tf

from experiments.training_time import training_time


def write(path, times):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for time in times:
            writer.write(tf.compat.v1.Event(wall_time=time).SerializeToString())


def test_the_time_of_each_process_counts_and_none_between(tmp_path):
    write(tmp_path / "events.out.tfevents.1.host", [1000.0, 1010.0, 1060.0])
    write(tmp_path / "events.out.tfevents.2.host", [9000.0, 9040.5])
    assert training_time(tmp_path) == pytest.approx(100.5)


def test_a_file_that_was_cut_off_counts_as_far_as_it_goes(tmp_path):
    file = tmp_path / "events.out.tfevents.1.host"
    write(file, [1000.0, 1010.0, 1060.0])
    file.write_bytes(file.read_bytes()[:-3])
    assert training_time(tmp_path) == pytest.approx(10.0)


def test_no_curves(tmp_path):
    assert training_time(tmp_path) is None
    (tmp_path / "events.out.tfevents.1.host").touch()
    assert training_time(tmp_path) is None
