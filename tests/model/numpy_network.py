"""The network once more: float64 numpy, one position at a time, from the equations in model.network."""

from collections.abc import Sequence

import numpy as np

from device_runtime.tokenizer import BOS, PAD


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def run_step(
    weights: Sequence[np.ndarray], token: int, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits [V], h [P], c [H] after one token."""
    embedding, kernel, bias, projection, output_bias = (w.astype(np.float64) for w in weights)
    forget, output, candidate = np.split(np.concatenate([embedding[token], h]) @ kernel + bias, 3)
    c = sigmoid(forget) * c + (1 - sigmoid(forget)) * np.tanh(candidate)
    h = (sigmoid(output) * np.tanh(c)) @ projection
    return embedding @ h + output_bias, h, c


def run_row(weights: Sequence[np.ndarray], tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states [T, P] and logits [T, V] of one row."""
    states, all_logits = list[np.ndarray](), list[np.ndarray]()
    for token in tokens:
        if token == BOS or not states:
            h, c = np.zeros(weights[0].shape[1]), np.zeros(weights[3].shape[0])
        logits, h, c = run_step(weights, int(token), h, c)
        states.append(h)
        all_logits.append(logits)
    return np.array(states), np.array(all_logits)


def sum_losses(weights: Sequence[np.ndarray], rows: np.ndarray) -> tuple[float, int]:
    """Summed cross-entropy and number of predicted pieces of rows [B, 2, T]."""
    total, count = 0.0, 0
    for tokens, targets in rows:
        _, logits = run_row(weights, tokens)
        for scores, target in zip(logits, targets, strict=True):
            if target != PAD:
                total += float(np.log(np.exp(scores - scores[target]).sum()))
                count += 1
    return total, count
