"""Evaluation: what attacks do to a predictor, the files of results, and signs of masked gradients."""

from madry_cifar.evaluation.evaluator import Evaluator

__all__ = ["Evaluator"]
