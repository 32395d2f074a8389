"""Classification losses with class weights, ignored labels, or probabilities as labels.

All are compositions of operations, which define their gradients.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from minires import backends, ops
from minires._checks import choice, integer
from minires.arrays import Array, array_module, is_array, plain_array
from minires.tensor import Tensor, as_tensor


def classification_loss(
    argument: str,
    scores: Tensor,
    labels: Any,
    reduction: str,
    label_smoothing: float | None,
    weight: Any,
    ignore_index: int | None,
) -> Tensor:
    """`cross_entropy`, or `nll_loss` if label_smoothing is None; `argument` is that function's name of the scores."""
    scores = as_tensor(scores, argument)
    choice(reduction, "reduction", ("mean", "sum", "none"))
    if scores.ndim < 1:
        raise ValueError(f"{argument} must be (N, C), (N, C, d1, ...) or (C,), got shape {scores.shape}")
    xp = array_module(scores.data)
    backend = backends.active(xp.__name__)
    source = labels if isinstance(labels, Tensor) else None
    if is_array(labels):
        plain_array(labels, "labels")
    nested = source is None and not is_array(labels)
    try:
        given = xp.asarray(labels if source is None else source.data)
        labels = backends.optional(backend, "copied")(given)  # backward needs them unchanged
    except ValueError as error:
        raise ValueError(f"labels cannot be made from this nested list: {error}") from None
    if nested and labels.dtype.kind == "f":
        labels = labels.astype(scores.dtype)  # Python's numbers take the scores' dtype
    one = scores.ndim == 1
    if one:  # a single label
        _check_shape(argument, scores, labels, label_smoothing is not None)
        scores = ops.Reshape((1, scores.size))(scores)
        labels = labels[None]
    probable = label_smoothing is not None and labels.dtype.kind == "f" and labels.shape == scores.shape
    if not one:
        _check_shape(argument, scores, labels, label_smoothing is not None)
    if labels.size == 0:
        raise ValueError(f"{argument} must not be empty, got shape {scores.shape}")
    weight = None if weight is None else _class_weights(weight, scores)
    if probable and label_smoothing is not None:
        if ignore_index is not None:
            raise ValueError("ignore_index must be None where labels are probabilities")
        target = Tensor(labels) if source is None else ops.Reshape(scores.shape)(source) if one else source
        loss = _of_probabilities(argument, scores, target, label_smoothing, reduction, weight)
    else:
        ignored = None if ignore_index is None else labels == integer(ignore_index, "ignore_index")
        check_values = backends.optional(backend, "check_values")
        check_values(partial(_check_labels, scores.shape[1], ignore_index), given, True)
        logits = label_smoothing is not None or ignored is not None
        check_values(partial(_check_scores, argument, logits), scores.data, False)
        if weight is None and ignored is None:
            loss = _loss(labels, label_smoothing, reduction)(scores)
        else:
            loss = _of_weighted_labels(argument, scores, labels, label_smoothing, reduction, weight, ignored)
    return ops.Reshape(())(loss) if one and loss.ndim else loss


def _loss(labels: Array, label_smoothing: float | None, reduction: str) -> ops.NLLLoss | ops.CrossEntropy:
    if label_smoothing is None:
        return ops.NLLLoss(labels, reduction)
    return ops.CrossEntropy(labels, label_smoothing, reduction)


def _of_weighted_labels(
    argument: str,
    scores: Tensor,
    labels: Array,
    label_smoothing: float | None,
    reduction: str,
    weight: Array | None,
    ignored: Array | None,
) -> Tensor:
    """Each label's loss times its class's weight; ignored labels count 0."""
    xp = array_module(labels)
    if ignored is not None:  # the substitute has a finite loss
        labels = xp.where(ignored, scores.data.argmax(axis=1), labels)
    counts = xp.ones(labels.shape, scores.dtype) if weight is None else weight[labels]
    if ignored is not None:
        counts = xp.where(ignored, xp.zeros((), scores.dtype), counts)
    total = counts.sum()
    if reduction == "mean":
        if not total:
            need = "labels must hold one that is not ignored" if weight is None else "weight must not sum to 0"
            raise ValueError(f"{need} for the mean over the labels of {argument} {scores.shape}")
        counts = counts / total
    if weight is None or not label_smoothing:
        losses = ops.Mul()(_loss(labels, label_smoothing, "none")(scores), Tensor(counts))
        return losses if reduction == "none" else ops.Sum(tuple(range(losses.ndim)), False)(losses)
    # The smoothed target spreads over all classes, and each class has its own weight.
    C = scores.shape[1]
    target = (1 - label_smoothing) * (xp.arange(C) == labels[..., None]) + label_smoothing / C  # (N, ..., C)
    kept = 1.0 if ignored is None else ~ignored
    share = xp.broadcast_to(xp.asarray(kept / total if reduction == "mean" else kept), labels.shape)
    target = xp.moveaxis(target * weight * share[..., None], -1, 1).astype(scores.dtype)  # (N, C, ...)
    _check_finite(argument, scores, "weight and label_smoothing together")
    return _expected(scores, Tensor(target), reduction)


def _of_probabilities(
    argument: str, scores: Tensor, target: Tensor, label_smoothing: float, reduction: str, weight: Array | None
) -> Tensor:
    """The loss for target (N, C, ...), like scores: the probability of each class."""
    xp = array_module(scores.data)
    if target.dtype != scores.dtype:
        raise TypeError(f"labels must have the dtype {scores.dtype} of {argument} as probabilities, got {target.dtype}")
    if not bool(xp.isfinite(target.data).all()):
        raise ValueError("labels must be finite as probabilities")
    _check_finite(argument, scores, "labels that are probabilities")
    C = scores.shape[1]

    def constant(value: Any) -> Tensor:
        return Tensor(xp.asarray(value, scores.dtype))

    if label_smoothing:
        target = ops.Mul()(target, constant(1 - label_smoothing))
        target = ops.Add()(target, constant(label_smoothing / C))
    if weight is not None:
        target = ops.Mul()(target, Tensor(weight.reshape(C, *(1,) * (scores.ndim - 2))))
    if reduction == "mean":
        target = ops.Mul()(target, constant(C / scores.size))
    return _expected(scores, target, reduction)


def _expected(scores: Tensor, target: Tensor, reduction: str) -> Tensor:
    """−Σ_k target_k · log softmax(scores)_k, summed over the labels as well unless reduction is "none"."""
    costs = ops.Mul()(ops.LogSoftmax(1)(scores), target)
    axis = (1,) if reduction == "none" else tuple(range(scores.ndim))
    return ops.Neg()(ops.Sum(axis, False)(costs))


def _class_weights(weight: Any, scores: Tensor) -> Array:
    """The class weights (C,) as a plain array."""
    weight = as_tensor(weight, "weight", 1, "(C,)")
    if weight.requires_grad:
        raise ValueError("weight must be constant: a Tensor that requires a gradient gets none here")
    if weight.dtype != scores.dtype:
        raise TypeError(f"weight must have the dtype {scores.dtype} of the scores, got {weight.dtype}")
    if weight.shape != (scores.shape[1],):
        raise ValueError(f"weight must have shape ({scores.shape[1]},), one a class, got {weight.shape}")
    xp = array_module(scores.data)
    array: Array = xp.asarray(weight.data)
    if not bool(xp.isfinite(array).all()):
        raise ValueError("weight must be finite")
    return array


def _check_shape(argument: str, scores: Tensor, labels: Array, probabilities: bool) -> None:
    positions = (scores.shape[0], *scores.shape[2:]) if scores.ndim > 1 else ()
    if probabilities and labels.dtype.kind == "f" and labels.shape == scores.shape:
        return
    if labels.dtype.kind not in "iu":
        more = f", or probabilities of shape {scores.shape}" if probabilities else ""
        raise TypeError(f"labels must be integers, got dtype {labels.dtype} and shape {labels.shape}{more}")
    if labels.shape != positions:
        raise ValueError(f"labels must have shape {positions} for {argument} {scores.shape}, got {labels.shape}")


def _check_labels(C: int, ignore_index: int | None, labels: Array) -> None:
    counted = labels if ignore_index is None else labels[labels != ignore_index]
    if counted.size == 0:
        return
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= C:
        raise ValueError(f"labels must lie in [0, {C}) for {C} classes, got {low if low < 0 else high}")


def _check_scores(argument: str, logits: bool, scores: Array) -> None:
    xp = array_module(scores)
    if bool(xp.isnan(scores).any()):
        raise ValueError(f"{argument} must not hold NaN")
    if logits:
        if bool((scores == xp.inf).any()):
            raise ValueError(f"{argument} must not hold +inf")
        if bool((scores.max(axis=1) == -xp.inf).any()):
            raise ValueError(f"{argument} must hold a number above −inf for every label")


def _check_finite(argument: str, scores: Tensor, what: str) -> None:
    if not bool(array_module(scores.data).isfinite(scores.data).all()):
        raise ValueError(f"{argument} must be finite with {what}")
