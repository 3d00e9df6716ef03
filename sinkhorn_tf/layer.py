"""The Sinkhorn distance as a Keras layer."""

import keras

from sinkhorn_tf.distance import sinkhorn_distance


@keras.saving.register_keras_serializable("sinkhorn_tf")
class SinkhornDistance(keras.layers.Layer):
    """Maps [x [n, d], y [m, d]] to the scalar `sinkhorn_distance(x, y)`; the arguments are those of the function.

    Under a policy of half precision (mixed_float16, bfloat16, ...) it computes in float32, and so is its output.
    """

    def __init__(
        self,
        regularization: float = 0.01,
        iterations: int = 100,
        gradient: str = "unrolled",
        cost: str = "squared_euclidean",
        threshold: float = 0.0,
        floor: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if self.compute_dtype in ("float16", "bfloat16"):  # to which Keras would round the inputs, too
            self.dtype_policy = "float32"
        self.settings = {
            "regularization": regularization,
            "iterations": iterations,
            "gradient": gradient,
            "cost": cost,
            "threshold": threshold,
            "floor": floor,
        }

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) != 2:
            raise ValueError(f"SinkhornDistance expects a list [x, y] of two batches. Received: inputs={inputs}")
        return sinkhorn_distance(*inputs, **self.settings)

    def compute_output_shape(self, input_shape):
        return ()

    def get_config(self):
        return super().get_config() | self.settings
