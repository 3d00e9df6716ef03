"""Side-by-side measurements of speed and memory."""

import madry_cifar.quiet  # noqa: F401 (first: imports TensorFlow without its chatter)
