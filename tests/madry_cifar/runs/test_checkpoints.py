"""Checkpoints: what is restored, which are kept and found, and what is said of a damaged one."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from madry_cifar import WideResNet, load_classifier
from madry_cifar.cli.errors import RunError, UsageError
from madry_cifar.networks.layers import Dense
from madry_cifar.runs import checkpoints, run_folder
from madry_cifar.runs.checkpoints import Checkpoints, find, flat_state, flat_variables, load_network, saved_steps
from madry_cifar.training.optimizers import Adam, Momentum, PiecewiseConstant, PyTorchAdam
from rvs_tf import Generator
from tests.two_layers import TwoLayers


def content(folder, *size, keep=3):
    """Two networks, of which one has an optimizer, and their checkpoints in a folder."""
    networks = {"classifier": WideResNet(*(size or (10, 1, 10))), "other": WideResNet(10, 1, 2, name="second")}
    optimizer = Momentum([v.value for v in networks["classifier"].trainable_variables], PiecewiseConstant([0.1]))
    return networks, optimizer, Checkpoints(folder, networks, {"classifier": optimizer}, keep)


def scramble(variables, seed):
    rng = np.random.default_rng(seed)
    for variable in variables:
        variable.assign(rng.normal(size=variable.shape))


def values(variables):
    return [variable.numpy() for variable in variables]


def assert_equal(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def saved(tmp_path):
    """A run's folder with checkpoints of the steps 5, 10 and 15; the seed of the weights is the step."""
    run_folder.create(tmp_path, {"depth": 10, "width": 1, "num_classes": 10})
    networks, _, saver = content(tmp_path)
    for step in (5, 10, 15):
        scramble(networks["classifier"].variables, step)
        saver.save(step)
    return tmp_path


def scrambled(step):
    network = WideResNet(10, 1, 10)
    scramble(network.variables, step)
    return values(network.variables)


def file(folder, ending):
    return next(pathlib.Path(folder, "checkpoints").glob(f"ckpt-15.{ending}*"))


def test_everything_is_restored_bit_for_bit(tmp_path):
    networks, optimizer, saver = content(tmp_path)
    assert saver.restore_latest() == 0
    momentum = optimizer.state["momentum"]
    for seed, variables in enumerate((networks["classifier"].variables, networks["other"].variables, momentum)):
        scramble(variables, seed)
    path = saver.save(7)
    assert path == str(tmp_path / "checkpoints" / "ckpt-7")
    fresh, fresh_optimizer, fresh_saver = content(tmp_path)
    assert fresh_saver.restore_latest() == 7
    for name, network in networks.items():
        assert_equal(values(fresh[name].variables), values(network.variables))
    assert_equal(values(fresh_optimizer.state["momentum"]), values(momentum))


def test_latest_checkpoint_is_restored(saved):
    networks, _, saver = content(saved)
    assert saver.restore_latest() == 15
    assert_equal(values(networks["classifier"].variables), scrambled(15))


def test_values_are_stored_under_flat_names(tmp_path):
    networks, optimizer, saver = content(tmp_path)
    slots = optimizer.state["momentum"]
    scramble(networks["classifier"].variables + slots, 0)
    stored = checkpoints.read(saver.save(3))
    assert stored.pop("step") == 3
    network = networks["classifier"]
    paths = [variable.path.split("/", 1)[1].replace("/", ".") for variable in network.trainable_variables]
    momenta = {f"classifier.{path}.momentum": slot for path, slot in zip(paths, slots, strict=True)}
    expected = flat_variables("classifier", network) | flat_variables("other", networks["other"]) | momenta
    assert set(stored) == set(expected)
    for name, variable in expected.items():
        np.testing.assert_array_equal(stored[name], variable)
    kernel = network.get_layer("unit_1_0").conv1.kernel
    np.testing.assert_array_equal(stored["classifier.unit_1_0.conv1.kernel"], kernel)
    assert not np.array_equal(stored["classifier.unit_1_0.conv1.kernel.momentum"], kernel)


# --- Optimizers of any names

RATE = PiecewiseConstant([0.125])


class Two(keras.Model):
    """Two layers, called first and last."""

    def __init__(self):
        super().__init__()
        self.first, self.last = Dense(3, name="first"), Dense(2, name="last")
        self.build((None, 4))

    def build(self, input_shape):
        self.first.build(input_shape)
        self.last.build((None, 3))
        self.built = True

    def part(self, name):
        return [variable.value for variable in getattr(self, name).trainable_variables]


def several(folder):
    """Two networks, with optimizers of parts of them; their checkpoints."""
    one, two = networks = Two(), Two()
    optimizers = {
        "one": Momentum(one.part("first") + one.part("last"), RATE),  # called like its network
        "adam": Adam(one.part("first") + two.part("last"), RATE),  # not so, and the second one of a layer
        "two": PyTorchAdam(one.part("last"), RATE),  # called like a network that it does not update
    }
    networks = dict(zip(("one", "two"), networks, strict=True))
    return networks, optimizers, Checkpoints(folder, networks, optimizers)


def update(optimizer, seed):
    rng = np.random.default_rng(seed)
    optimizer.apply([tf.constant(rng.normal(size=v.shape), v.dtype) for v in optimizer.variables], 0)


def test_what_optimizers_keep_is_restored_whatever_they_are_called(tmp_path):
    networks, optimizers, saver = several(tmp_path)
    for seed, name in enumerate(["one", "adam", "adam", "two", "adam"]):
        update(optimizers[name], seed)
    saver.save(4)
    others, other_optimizers, other_saver = several(tmp_path)
    assert other_saver.restore_latest() == 4
    for seed, name in enumerate(optimizers):
        update(optimizers[name], seed)
        update(other_optimizers[name], seed)  # goes by all that it keeps
        for kept, slots in optimizers[name].state.items():
            assert_equal(values(other_optimizers[name].state[kept]), values(slots))
    for name, network in networks.items():
        assert_equal(values(others[name].variables), values(network.variables))
    assert [int(other_optimizers[name].count) for name in ("adam", "two")] == [4, 2]


def test_names_of_what_optimizers_keep(tmp_path):
    _, optimizers, saver = several(tmp_path)
    for optimizer in optimizers.values():
        update(optimizer, 0)
    stored = checkpoints.read(saver.save(4))
    first, last = ([f"{layer}.{name}" for name in ("kernel", "bias")] for layer in ("first", "last"))
    expected = {f"{network}.{path}" for network in ("one", "two") for path in first + last}
    expected |= {f"one.{path}.momentum" for path in first + last}
    expected |= {f"{path}.adam.{kept}" for kept in "mv" for path in (f"one.{first[0]}", f"one.{first[1]}")}
    expected |= {f"{path}.adam.{kept}" for kept in "mv" for path in (f"two.{last[0]}", f"two.{last[1]}")}
    expected |= {f"one.{path}.two.{kept}" for kept in "mv" for path in last}
    assert set(stored) == expected | {"step", "adam.count", "two.count"}
    assert (stored["adam.count"], stored["two.count"]) == (1, 1)
    np.testing.assert_array_equal(stored["one.last.bias.two.v"], optimizers["two"].state["v"][1])


def test_a_checkpoint_of_an_earlier_version_has_made_an_update_a_step(tmp_path):
    """There Adam's count was not kept, as every optimizer made one update a step."""
    networks, optimizers, saver = several(tmp_path)
    for step in range(3):
        for optimizer in optimizers.values():
            update(optimizer, step)
    earlier = {n: v for n, v in flat_state(networks, optimizers).items() if not n.endswith(".count")}
    written = tf.train.Checkpoint(step=tf.Variable(3, dtype=tf.int64), **earlier)
    folder = str(tmp_path / "checkpoints")
    tf.train.CheckpointManager(written, folder, None, checkpoint_name="ckpt").save(checkpoint_number=3)
    _, later, saver = several(tmp_path)
    assert saver.restore_latest() == 3
    assert [int(later[name].count) for name in ("adam", "two")] == [3, 3]
    for name, optimizer in optimizers.items():
        update(optimizer, 3)
        update(later[name], 3)
        assert_equal(values(later[name].variables), values(optimizer.variables))
    saver.save(4)
    _, again, saver = several(tmp_path)
    assert saver.restore_latest() == 4
    assert int(again["adam"].count) == 4


def test_a_missing_count_excuses_nothing_else(tmp_path):
    networks, optimizers, _ = several(tmp_path / "other")
    del optimizers["adam"]
    Checkpoints(tmp_path, networks, optimizers).save(3)
    with pytest.raises(RunError, match=r"ckpt-3: of another network"):
        several(tmp_path)[2].restore_latest()


def test_a_variable_that_belongs_to_no_network_is_refused():
    stranger, network = tf.Variable(1.0, name="stranger"), Two()
    optimizer = Momentum([*network.part("first"), stranger], RATE)
    with pytest.raises(ValueError, match=r"optimizer 'any' updates stranger:0 of none of the networks \['one'\]"):
        flat_state({"one": network}, {"any": optimizer})


def test_what_two_optimizers_would_share_is_refused():
    network = Two()
    optimizer, other = (Adam(network.part("first"), RATE) for _ in range(2))
    with pytest.raises(ValueError, match=r"one.first.kernel.a.m and one.first.kernel.b.m are one variable"):
        flat_state({"one": network}, {"a": optimizer, "b": optimizer})
    other.count = optimizer.count
    with pytest.raises(ValueError, match=r"a.count and b.count are one variable"):
        flat_state({"one": network}, {"a": optimizer, "b": other})
    with pytest.raises(ValueError, match=r"two variables would be saved as one.first.kernel.a.m"):
        flat_state({"one": network}, {"a": Adam(2 * network.part("first"), RATE)})


def test_variables_that_would_have_one_name_are_refused():
    with pytest.raises(ValueError, match=r"two variables would be saved as one.kernel"):
        flat_variables("one", TwoLayers())  # made outside of a network's `build`, layers do not have its name


def test_every_state_has_a_name_of_its_own():
    """However much the optimizers' names look like others."""
    networks = {"one": Two(), "two": Two()}
    variables = [variable.value for network in networks.values() for variable in network.variables]
    optimizers = {name: Adam(variables, RATE) for name in ("one", "two", "first", "m", "count", "one.m", "first.m")}
    assert len(flat_state(networks, optimizers)) == 8 + 7 * (2 * 8 + 1)


@pytest.mark.parametrize(("keep", "left"), [(1, [12]), (2, [9, 12]), (3, [6, 9, 12]), (0, [3, 6, 9, 12])])
def test_number_of_checkpoints_that_are_kept(tmp_path, keep, left):
    _, _, saver = content(tmp_path, keep=keep)
    for step in (3, 6):
        saver.save(step)
    _, _, saver = content(tmp_path, keep=keep)  # interrupted and continued
    for step in (9, 12):
        saver.save(step)
    assert list(saved_steps(tmp_path)) == left
    files = [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name != "checkpoint"]
    assert len(files) == 2 * len(left)


def test_step_that_is_saved_already_is_not_written_again(saved):
    networks, _, saver = content(saved)
    saver.restore_latest()
    before = file(saved, "data").stat().st_mtime_ns
    scramble(networks["classifier"].variables, 99)
    saver.save(15)
    assert file(saved, "data").stat().st_mtime_ns == before
    assert list(saved_steps(saved)) == [5, 10, 15]


@pytest.mark.parametrize(
    ("checkpoint", "step"),
    [(None, 15), ("", 15), (10, 10), ("10", 10), ("ckpt-5", 5), ("{}/checkpoints/ckpt-5", 5)],
)
def test_find(saved, checkpoint, step):
    if isinstance(checkpoint, str):
        checkpoint = checkpoint.format(saved)
    assert find(saved, checkpoint) == (step, str(saved / "checkpoints" / f"ckpt-{step}"))


@pytest.mark.parametrize("checkpoint", [7, "7", "ckpt-7", "ckpt-10.index", "latest", 0])
def test_missing_checkpoint_is_named_with_those_there_are(saved, checkpoint):
    with pytest.raises(UsageError, match=f"--checkpoint={checkpoint}: .*: 5, 10, 15"):
        find(saved, checkpoint)


def test_checkpoint_of_another_folder_is_refused(saved):
    with pytest.raises(UsageError, match="--checkpoint=/elsewhere/checkpoints/ckpt-10"):
        find(saved, "/elsewhere/checkpoints/ckpt-10")


def test_folder_without_checkpoints(tmp_path):
    with pytest.raises(UsageError, match=rf"--train_dir={tmp_path}: holds no checkpoints yet"):
        find(tmp_path)


@pytest.mark.parametrize("damage", [None, b"", b"\xff\xfe", b'model_checkpoint_path: "ckpt-10"\n'])
def test_checkpoints_are_not_ignored_when_the_list_of_them_is_lost(saved, damage):
    """TensorFlow's list: lost, emptied, damaged, or behind the files."""
    path = saved / "checkpoints" / "checkpoint"
    path.unlink() if damage is None else path.write_bytes(damage)
    networks, optimizer, _ = content(saved)
    saver = Checkpoints(saved, networks, {"classifier": optimizer}, keep=2)
    assert saver.restore_latest() == 15
    saver.save(20)
    assert list(checkpoints.saved_steps(saved)) == [15, 20]


def test_files_of_other_names_are_no_checkpoints(saved):
    (saved / "checkpoints" / "ckpt-15-copy.index").touch()
    assert list(checkpoints.saved_steps(saved)) == [5, 10, 15]


def cut(share):
    return lambda data: data[: int(share * len(data))]


def flip(share):
    def flipped(data):
        index = int(share * len(data))
        return data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]

    return flipped


DAMAGES = {
    "data cut to nothing": ("data", cut(0)),
    "data cut in the middle": ("data", cut(0.5)),
    "data cut at the end": ("data", cut(0.99)),
    "data with a wrong byte": ("data", flip(0.3)),
    "index cut to nothing": ("index", cut(0)),
    "index cut in the middle": ("index", cut(0.5)),
    "index with a wrong byte": ("index", flip(0.5)),
}


def assert_one_line_naming(error, path):
    assert str(path).rsplit(".", 1)[0] in str(error.value)
    assert "damaged" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_passed_over(saved, damage, capsys):
    ending, change = DAMAGES[damage]
    path = file(saved, ending)
    path.write_bytes(change(path.read_bytes()))
    networks, _, saver = content(saved, keep=1)
    with pytest.raises(RunError) as error:
        checkpoints.read(str(saved / "checkpoints" / "ckpt-15"))
    assert_one_line_naming(error, path)
    assert "delete" not in str(error.value)
    assert saver.restore_latest() == 10
    warning = capsys.readouterr().err
    assert warning.startswith(f"warning: checkpoint {saved}/checkpoints/ckpt-15: damaged (")
    assert warning.endswith("; going on from one before it, after step 10\n")
    assert_equal(values(networks["classifier"].variables), scrambled(10))
    saver.save(12)
    assert list(saved_steps(saved)) == [12, 15]  # it is not kept in place of a whole one
    saver.save(15)
    assert content(saved)[2].restore_latest() == 15
    assert capsys.readouterr().err == ""


def test_a_run_of_damaged_checkpoints_alone(saved):
    for index in (saved / "checkpoints").glob("*.index"):
        index.write_bytes(b"")
    with pytest.raises(RunError, match=r"ckpt-15: damaged"):
        content(saved)[2].restore_latest()


def test_a_checkpoint_without_its_data_is_named(saved):
    file(saved, "data").unlink()
    with pytest.raises(RunError, match=r"ckpt-15: damaged .*; the one before it: 10"):
        load_classifier(saved)


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*b?", r"a\b", "{x,y} ε"])
def test_a_folder_with_any_name(tmp_path, name):
    """To TensorFlow's own functions these are patterns, that match other folders or none."""
    networks, optimizer, saver = content(tmp_path / name, keep=2)
    for step in (1, 2, 3):
        scramble(networks["classifier"].variables + optimizer.state["momentum"], step)
        saver.save(step)
    assert list(saved_steps(tmp_path / name)) == [2, 3]
    others, other_optimizer, other_saver = content(tmp_path / name)
    assert other_saver.restore_latest() == 3
    assert_equal(values(others["classifier"].variables), values(networks["classifier"].variables))
    assert_equal(values(other_optimizer.state["momentum"]), values(optimizer.state["momentum"]))
    load_network(others["other"], "other", tmp_path / name, 2)


def test_what_cannot_be_written_leaves_nothing(saved, monkeypatch):
    _, _, saver = content(saved)
    before = sorted((saved / "checkpoints").iterdir())

    def fail(self, path):
        (saved / "checkpoints" / f"{pathlib.Path(path).name}_temp").mkdir()  # as TensorFlow does
        raise tf.errors.ResourceExhaustedError(None, None, f"{path}_temp/part-0; No space left on device")

    monkeypatch.setattr(tf.train.Checkpoint, "write", fail)
    with pytest.raises(OSError, match="No space left on device") as error:
        saver.save(20)
    assert error.value.filename == str(saved / "checkpoints" / "ckpt-20")
    assert sorted((saved / "checkpoints").iterdir()) == before


def test_what_a_killed_process_has_left_is_removed(saved):
    before = sorted((saved / "checkpoints").iterdir())
    for name in (".writing-ckpt-20_temp", "ckpt-20_temp"):
        (saved / "checkpoints" / name).mkdir()
        (saved / "checkpoints" / name / "part-00000-of-00001.index").touch()
    (saved / "checkpoints" / ".writing-ckpt-20.index").touch()
    content(saved)
    assert sorted((saved / "checkpoints").iterdir()) == before


def test_checkpoints_of_tensorflows_own_manager_are_read(tmp_path):
    """As earlier versions wrote them."""
    networks, optimizer, _ = content(tmp_path)
    state = flat_state(networks, {"classifier": optimizer})
    scramble(networks["classifier"].variables, 4)
    written = tf.train.Checkpoint(step=tf.Variable(4, dtype=tf.int64), **state)
    folder = str(tmp_path / "checkpoints")
    tf.train.CheckpointManager(written, folder, None, checkpoint_name="ckpt").save(checkpoint_number=4)
    others, _, saver = content(tmp_path)
    assert saver.restore_latest() == 4
    assert_equal(values(others["classifier"].variables), values(networks["classifier"].variables))
    assert checkpoints.read(f"{folder}/ckpt-4").keys() == {*state, "step"}


def test_a_checkpoint_whose_writing_was_cut_off_is_passed_over(saved):
    file(saved, "index").unlink()  # TensorFlow writes it last
    _, _, saver = content(saved)
    assert saver.restore_latest() == 10


@pytest.mark.parametrize("size", [(16, 1, 10), (10, 2, 10), (10, 1, 100)])
def test_checkpoint_of_another_architecture_is_refused(saved, size):
    _, _, saver = content(saved, *size)
    for restore in (saver.restore_latest, lambda: load_network(WideResNet(*size), "classifier", saved)):
        with pytest.raises(RunError, match=r"ckpt-15: of another network \(") as error:
            restore()
        assert "\n" not in str(error.value)


def test_checkpoint_of_a_larger_network_is_not_continued_by_a_smaller_one(tmp_path):
    _, _, saver = content(tmp_path, 16, 1, 10)
    saver.save(1)
    _, _, saver = content(tmp_path)
    with pytest.raises(RunError, match="of another network"):
        saver.restore_latest()


def test_network_that_the_run_does_not_have(saved):
    with pytest.raises(RunError, match=r"ckpt-15: of another network"):
        load_network(Generator(), "generator", saved)


@pytest.mark.parametrize(("checkpoint", "step"), [(None, 15), (5, 5), ("ckpt-10", 10)])
def test_classifier_of_a_run(saved, checkpoint, step):
    network = load_classifier(saved, checkpoint)
    assert (network.depth, network.width, network.num_classes) == (10, 1, 10)
    assert_equal(values(network.variables), scrambled(step))


def test_classifier_of_no_run(tmp_path):
    with pytest.raises(UsageError, match=r"--train_dir=.*missing: no such folder"):
        load_classifier(tmp_path / "missing")
    with pytest.raises(UsageError, match=r"holds no run \(no flags.json\)"):
        load_classifier(tmp_path)
    run_folder.create(tmp_path, {"depth": 10, "width": 1, "num_classes": 10})
    with pytest.raises(UsageError, match="holds no checkpoints yet"):
        load_classifier(tmp_path)


def test_weights_alone(saved):
    """In half precision and without momentum: they are evaluated, and what cannot go on with them says what can."""
    stored = checkpoints.read(find(saved, 15)[1])
    weights = {name: tf.Variable(value.astype(np.float16)) for name, value in stored.items() if "momentum" not in name}
    checkpoints.write(saved / "checkpoints" / "ckpt-20", weights | {"step": tf.Variable(20, dtype=tf.int64)})
    for value, expected in zip(values(load_classifier(saved).variables), scrambled(15), strict=True):
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, expected.astype(np.float16))
    networks, _, saver = content(saved)
    scramble(networks["classifier"].variables, 1)
    with pytest.raises(RunError, match=f"ckpt-20: weights alone.*--starts_from={saved} begins another run"):
        saver.restore_latest()
    assert_equal(values(networks["classifier"].variables), scrambled(1))  # untouched
