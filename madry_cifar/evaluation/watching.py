"""A bar that moves while a batch is attacked: by counting the images that have passed through the predictor."""

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping

import tensorflow as tf

from madry_cifar.predictor import Predictor, Wrapped

SECONDS = 0.5  # between two looks


class Counting(Wrapped):
    """A predictor that counts the images it is asked for, in `count`."""

    def __init__(self, predictor: Predictor, count: tf.Variable):
        super().__init__(predictor)
        self.count = count

    def __call__(self, images, draw=0):
        self.count.assign_add(tf.shape(images, tf.int64)[0])
        return self.predictor(images, draw)

    def around(self, predictor):
        return Counting(predictor, self.count)


def passes(protocol: Mapping, random: bool = False) -> int:
    """How often an attack with this protocol asks a predictor for an image, at most, its outputs being `random` or not.

    A few queries at its start do not count.
    """
    names = ("restarts", "targets", "eot", "searches", *(["eot_if_random"] if random else []))
    times = math.prod(protocol.get(name, 1) for name in names)
    return protocol.get("steps", 0) * times + protocol.get("queries", 0)


@contextlib.contextmanager
def moving(bar, count: tf.Variable, images: int, most: int) -> Iterator[None]:
    """Moves a bar during the block: by up to `images`, when each has passed `most` times and `count` says so.

    At the end of the block the bar is where it was: its owner then knows how far it went.
    """
    if bar.disable or not most:
        yield
        return
    start, ended = bar.n, threading.Event()
    count.assign(0)

    def look():
        while not ended.wait(SECONDS):
            share = min(int(count.numpy()) / most, images - 1)
            bar.update(start + int(share) - bar.n)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        bar.n = start
