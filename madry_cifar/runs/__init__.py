"""A run on disk: its folder, its checkpoints, whole-or-absent files, and TensorFlow 1's names."""
