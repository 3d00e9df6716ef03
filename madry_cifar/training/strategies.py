"""On which devices a training runs: one, all of this machine, or those of several machines (`tf.distribute`)."""

import json
import os

import tensorflow as tf

from madry_cifar.cli.errors import UsageError, unknown

STRATEGIES = ("none", "mirrored", "multiworker")


def make(name: str) -> tf.distribute.Strategy:
    """The strategy for a value of `--strategy`; to be called before anything else of TensorFlow.

    "none" is one device, "mirrored" all GPUs of this machine (without any, its CPU), "multiworker" those of all the
    processes that `TF_CONFIG` names, this one among them.

    Raises:
      UsageError: for another name, or without a `TF_CONFIG` that can be used.
    """
    if name not in STRATEGIES:
        raise unknown("strategy", name, STRATEGIES)
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy(devices)
    if name == "multiworker":
        _check_cluster(os.environ.get("TF_CONFIG"))
        return tf.distribute.MultiWorkerMirroredStrategy()
    return tf.distribute.get_strategy()


def _check_cluster(text):
    example = """'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}'"""
    if not text:
        raise UsageError(
            "strategy", "multiworker", f"set TF_CONFIG in the environment of each process, as in {example}"
        )
    try:
        content = json.loads(text)
        cluster, task = content["cluster"], content["task"]
        tasks = cluster[task["type"]]
        if not 0 <= task["index"] < len(tasks) or set(cluster) - {"chief", "worker"}:
            raise ValueError("its task is not among those of its cluster, all of type chief or worker")
    except (ValueError, KeyError, TypeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            None, None, f"TF_CONFIG={text}: cannot be used ({reason}); it should look like {example}"
        ) from None


def several_workers(strategy: tf.distribute.Strategy) -> bool:
    """Whether other processes take part."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and reports: the chief or, where there is none, worker 0."""
    if not several_workers(strategy):
        return True
    resolver = strategy.cluster_resolver
    has_chief = "chief" in resolver.cluster_spec().jobs
    return resolver.task_type == "chief" or (not has_chief and resolver.task_id == 0)
