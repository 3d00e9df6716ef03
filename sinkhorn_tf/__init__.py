"""Entropy-regularised optimal transport between two batches of points, in TensorFlow: costs, distance, Keras layer."""

from sinkhorn_tf.cost import cosine_cost, squared_euclidean_cost
from sinkhorn_tf.distance import sinkhorn_distance, transport_plan
from sinkhorn_tf.layer import SinkhornDistance

__all__ = ["SinkhornDistance", "cosine_cost", "sinkhorn_distance", "squared_euclidean_cost", "transport_plan"]
