"""Metrics of a classifier: confusion matrix, accuracy and macro F1, with 95% intervals."""

from __future__ import annotations

import numpy as np

from jupyter_gpt.evaluation.intervals import wilson

RESAMPLES = 1000  # bootstrap resamples


def confusion(true: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    """Counts `(labels, labels)`: true label (rows) × predicted label (columns), both given as indices `(n,)`."""
    return np.bincount(np.asarray(true) * labels + np.asarray(predicted), minlength=labels * labels).reshape(
        labels, labels
    )


def f1(matrix: np.ndarray) -> float:
    """Macro F1: the mean over labels of 2 TP / (2 TP + FP + FN); 0 for a label that is neither true nor predicted."""
    right, total = np.diag(matrix), matrix.sum(0) + matrix.sum(1)
    return float(np.mean(np.divide(2 * right, total, out=np.zeros(len(right)), where=total > 0)))


def metrics(true: np.ndarray, predicted: np.ndarray, labels: int) -> dict:
    """Accuracy with its Wilson interval, macro F1 with its bootstrap percentile interval (Efron 1979), both of 95%."""
    matrix = confusion(true, predicted, labels)
    count = int(matrix.sum())
    accuracy = float(np.trace(matrix) / count)
    low, high = wilson(accuracy, count)
    resampled = np.random.default_rng(0).multinomial(count, matrix.ravel() / count, RESAMPLES)
    scores = [f1(row.reshape(labels, labels)) for row in resampled]
    f1_low, f1_high = np.percentile(scores, [2.5, 97.5]).tolist()
    return {
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "f1": f1(matrix),
        "f1_low": f1_low,
        "f1_high": f1_high,
        "confusion": matrix.tolist(),
    }
