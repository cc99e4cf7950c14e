"""How well a classifier does: confusion matrix, accuracy, F1, and how far they may be off."""

from __future__ import annotations

import numpy as np

from jupyter_gpt.evaluation.intervals import wilson

RESAMPLED = 1000  # times, for the interval of F1


def confusion(true: np.ndarray, said: np.ndarray, labels: int) -> np.ndarray:
    """`(labels, labels)` counts: rows what it is, columns what was said; both are indices `(n,)`."""
    return np.bincount(np.asarray(true) * labels + np.asarray(said), minlength=labels * labels).reshape(labels, labels)


def f1(matrix: np.ndarray) -> float:
    """The mean over labels of 2 TP / (2 TP + FP + FN), macro F1; 0 for a label that is never said."""
    right = np.diag(matrix)
    around = matrix.sum(0) + matrix.sum(1)
    return float(np.mean(np.divide(2 * right, around, out=np.zeros(len(right)), where=around > 0)))


def measured(true: np.ndarray, said: np.ndarray, labels: int) -> dict:
    """Accuracy with its Wilson interval, macro F1 with its bootstrap percentile interval (Efron 1979), both of 95%."""
    matrix = confusion(true, said, labels)
    count = int(matrix.sum())
    accuracy = float(np.trace(matrix) / count)
    low, high = wilson(accuracy, count)
    drawn = np.random.default_rng(0).multinomial(count, matrix.ravel() / count, RESAMPLED)
    scores = [f1(row.reshape(labels, labels)) for row in drawn]
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
