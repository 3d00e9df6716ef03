"""Trained classifiers, and compiled training iterations, as files that run without this package (`rvs_tf.export`)."""
