"""The head brought to its optimum before anything else learns.

A head that starts at random bends good features in its first steps; fitted first, it doesn't
(Kumar et al. 2022, "Fine-Tuning can Distort Pretrained Features"). On two cores the fitted
head on frozen ImageNet features is a detector of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distildire.distill.student import HiddenHead, Student
from distildire.io.progress import Done

BATCH, RATE = 256, 1e-3
"""Features per step, and the highest learning rate, of a head with a hidden layer."""


@torch.no_grad()
def pooled_features(
    student: Student,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    progress: Done | None = None,
) -> tuple[Tensor, Tensor]:
    """What the head sees of batches of (x0, noise, labels): [N, channels] and labels [N]."""
    student.eval()
    device = next(student.parameters()).device
    features, labels, seen = [], [], 0
    for x0, noise, label in batches:
        maps = student.forward_maps(x0.to(device), noise.to(device))
        features.append(student.pool(maps).float().cpu())
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
    mean, deviation = _scale(features)
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


def _scale(features: Tensor) -> tuple[Tensor, Tensor]:
    return features.mean(0), features.std(0).clamp_min(1e-3)


def fit_hidden(
    head: HiddenHead, features: Tensor, labels: Tensor, *, dropout: float, weight_decay: float,
    epochs: int,
) -> None:  # fmt: skip
    """Train a hidden head on features [N, C] and labels [N], with dropout of the features.

    AdamW under a one-cycle rate, on features brought to mean 0 and deviation 1; the result is
    for the features as they are. Randomness is torch's own: seed it.
    """
    mean, deviation = _scale(features)
    unit = (features - mean) / deviation
    fresh = HiddenHead(features.shape[1], head.inner.out_features)
    fresh.outer.reset_parameters()
    optimizer = torch.optim.AdamW(fresh.parameters(), RATE, weight_decay=weight_decay)
    steps = max(10, epochs * len(unit) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for _ in range(steps):
        picked = torch.randint(len(unit), (BATCH,))
        logits = fresh(F.dropout(unit[picked], dropout))[:, 0]
        loss = F.binary_cross_entropy_with_logits(logits, labels[picked])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        fresh.inner.weight.div_(deviation)
        fresh.inner.bias.sub_(fresh.inner.weight @ mean)
    head.load_state_dict(fresh.state_dict())


def fit_head(
    student: Student,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    *,
    l2: float,
    epochs: int = 8,
    weight_decay: float = 0.01,
    progress: Done | None = None,
) -> float:
    """Fit the head of `student` on its pooled maps.

    A linear head is set to the logistic regression with penalty `l2`; a hidden one is trained
    for `epochs` with `weight_decay` and the student's dropout.

    Returns the mean cross entropy on the same batches, in nats.
    """
    features, labels = pooled_features(student, batches, progress)
    head: nn.Module = student.head
    if isinstance(head, HiddenHead):
        with torch.autocast("cpu", enabled=False):
            fit_hidden(head, features, labels, dropout=student.dropout.p, epochs=epochs,
                       weight_decay=weight_decay)  # fmt: skip
    else:
        weights, bias = logistic_regression(features, labels, l2=l2)
        with torch.no_grad():
            student.head.weight.copy_(weights[None])  # type: ignore[operator]
            student.head.bias.copy_(bias)  # type: ignore[operator]
    device = next(head.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        logits = head(features.to(device))[:, 0].cpu()
        return float(F.binary_cross_entropy_with_logits(logits, labels))
