"""The linear head brought to its optimum before anything else learns.

A head that starts at random bends good features in its first steps; fitted first, it doesn't
(Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"). On two cores the fitted
head on frozen ImageNet features is a detector of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from distildire.distill.student import Student


@torch.no_grad()
def pooled_features(
    student: Student,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    progress: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """What the head sees of batches of (x0, noise, labels): [N, channels] and labels [N]."""
    student.eval()
    features, labels, seen = [], [], 0
    for x0, noise, label in batches:
        features.append(student.pool(student.forward_maps(x0, noise)).float().cpu())
        labels.append(label.float().cpu())
        seen += len(label)
        if progress is not None:
            progress(seen)
    return torch.cat(features), torch.cat(labels)


def logistic_regression(
    features: Tensor, labels: Tensor, *, l2: float, iterations: int = 60
) -> tuple[Tensor, Tensor]:
    """Weights [C] and bias [] of the logistic regression of labels [N] on features [N, C].

    Minimises the mean cross entropy + l2 / 2 * |w|^2 by L-BFGS; w is of the features brought
    to mean 0 and deviation 1, so that the penalty treats all alike. The result is for the
    features as they are.
    """
    mean, deviation = features.mean(0), features.std(0).clamp_min(1e-3)
    unit = (features - mean) / deviation
    solution = torch.zeros(features.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [solution], max_iter=iterations, history_size=8, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = unit @ solution[:-1] + solution[-1]
        value = F.binary_cross_entropy_with_logits(logits, labels)
        value = value + 0.5 * l2 * solution[:-1].square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    fitted = solution.detach()
    weights = fitted[:-1] / deviation
    return weights, fitted[-1] - weights @ mean


def fit_head(
    student: Student,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    l2: float,
    progress: Callable[[int], None] | None = None,
) -> float:
    """Set the head of `student` to the logistic regression on its pooled maps.

    Returns the mean cross entropy on the same batches, in nats.
    """
    features, labels = pooled_features(student, batches, progress)
    weights, bias = logistic_regression(features, labels, l2=l2)
    with torch.no_grad():
        student.head.weight.copy_(weights[None])
        student.head.bias.copy_(bias)
        return float(F.binary_cross_entropy_with_logits(features @ weights + bias, labels))
