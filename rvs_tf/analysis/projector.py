"""Points of feature space for TensorBoard's projector, with what they are and a picture of each."""

import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from tensorboard.plugins import projector


def write(
    train_dir: pathlib.Path, tensors: Mapping[str, tuple[np.ndarray, np.ndarray]], columns: Mapping[str, Sequence]
) -> None:
    """Writes the tensors of a run into its folder, in place of those that its projector showed before.

    The files are in `projector/`, and the configuration that points to them is `projector_config.pbtxt`, where
    TensorBoard looks for it.

    Args:
      train_dir: the run's folder.
      tensors: by name, features [P, d] and images [P, 32, 32, 3] of pixels in [0, 255].
      columns: what each of the P points is, for all tensors.
    """
    temporary, folder = train_dir / f".projector.{os.getpid()}", train_dir / "projector"
    config = projector.ProjectorConfig()
    try:
        temporary.mkdir()
        rows = [columns.keys(), *zip(*columns.values(), strict=True)]
        (temporary / "metadata.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        for name, (features, images) in tensors.items():
            np.savetxt(temporary / f"{name}.tsv", features, fmt="%.7g", delimiter="\t")
            tf.io.write_file(str(temporary / f"{name}.png"), tf.io.encode_png(sprite(images)))
            embedding = config.embeddings.add(
                tensor_name=name, tensor_path=f"projector/{name}.tsv", metadata_path="projector/metadata.tsv"
            )
            embedding.sprite.image_path = f"projector/{name}.png"
            embedding.sprite.single_image_dim.extend(images.shape[1:3])
        projector.visualize_embeddings(temporary, config)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        (folder / "projector_config.pbtxt").replace(train_dir / "projector_config.pbtxt")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sprite(images: np.ndarray) -> np.ndarray:
    """One square picture, uint8, of all `images` [P, H, W, 3] in [0, 255], row by row; white where there are none."""
    side = math.ceil(math.sqrt(len(images)))
    missing = (0, side**2 - len(images))
    pixels = np.pad(np.rint(images).astype(np.uint8), [missing, (0, 0), (0, 0), (0, 0)], constant_values=255)
    height, width = images.shape[1:3]
    return pixels.reshape(side, side, height, width, 3).swapaxes(1, 2).reshape(side * height, side * width, 3)
