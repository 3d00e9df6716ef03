"""Evaluation: what attacks do to a predictor, the files of results, and signs of masked gradients."""
