"""What an attack maximises, per image: cross-entropy, or a margin of logits; and what counts as an error."""

import tensorflow as tf

KAPPA = 50.0


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Cross-entropy [B] of `logits` [B, K] with `labels`: integer classes [B], or soft ones [B, K]."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2:
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def is_true(labels: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """[B, K]: whether an entry of `scores` [B, K] is that of the true class of `labels` [B]."""
    return tf.one_hot(labels, tf.shape(scores)[1], on_value=True, off_value=False, dtype=tf.bool)


def is_wrong(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Whether another class than the true one has the largest of the `logits` [B, K], [B]."""
    return tf.argmax(logits, axis=1, output_type=labels.dtype) != labels


def lead(scores: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """s_y − max_{j≠y} s_j [B]: by how much the true class leads; `scores` [B, K] are logits or probabilities."""
    mask = is_true(labels, scores)
    true = tf.reduce_sum(tf.where(mask, scores, 0), axis=1)
    return true - tf.reduce_max(tf.where(mask, scores.dtype.min, scores), axis=1)


def margin(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """−max(z_y − max_{j≠y} z_j + κ, 0) [B], κ = 50: grows as the true class loses to the best other one."""
    return -tf.nn.relu(lead(logits, labels) + KAPPA)


def logit_gap(logits: tf.Tensor, labels: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """z_t − z_y [B]: by how much a target class leads the true one."""
    return tf.gather(logits, targets, batch_dims=1) - tf.gather(logits, labels, batch_dims=1)


LOSSES = {"xent": cross_entropy, "cw": margin}
