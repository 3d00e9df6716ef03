"""Side-by-side measurements of speed and memory."""

import os

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # several processes share a GPU's memory

import madry_cifar.cli.quiet  # noqa: F401 (imports TensorFlow without its chatter)
