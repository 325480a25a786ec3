"""Kernel machines with Gaussian kernels: the weighted sums of ``exp(-|z - point|^2)`` that they answer with.

A support vector machine, kernel ridge regression or the mean of a Gaussian process answers with the kernel between a row
and its points, weighed and summed. A Gaussian kernel of derived columns is a product of one factor per raw column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.types import FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One Gaussian kernel: derived columns times ``scale`` (derived,), and the points' weights (outputs, points)."""

    scale: FloatArray
    weights: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A sum of terms about the same points.

    Attributes
    ----------
    points : ndarray of shape (points, derived)
    terms : tuple of Term
    intercept : ndarray of shape (outputs,)
    """

    points: FloatArray
    terms: tuple[Term, ...]
    intercept: FloatArray

    def answers(self, derived: FloatArray) -> FloatArray:
        """Return what the machine answers to derived rows: array of shape (n, outputs)."""
        from scipy.spatial.distance import cdist

        found = np.tile(self.intercept, (len(derived), 1))
        for term in self.terms:
            found += (
                np.exp(-cdist(derived * term.scale, self.points * term.scale, "sqeuclidean")) @ term.weights.T
            )
        return found


def read(native: Any) -> Machine:
    """Return the machine inside a fitted scikit-learn estimator.

    Raises
    ------
    NotApplicable
        Its kernel is another one, or its answer is made of several machines' votes.
    """
    name = type(native).__name__
    return READERS[name](native)


def _support_vectors(native: Any) -> Machine:
    name = type(native).__name__
    if native.kernel != "rbf":
        msg = (
            f"the {_kernel_name(native.kernel)} kernel of {name} is no product over columns (an 'rbf' one is)"
        )
        raise NotApplicable(msg)
    if len(getattr(native, "classes_", ())) > 2:
        msg = f"{name} decides between several classes by the votes of pairs"
        raise NotApplicable(msg)
    points = dense(native.support_vectors_)
    # what gamma="scale" came to is told nowhere else; a wrong reading does not pass the comparison of answers
    return Machine(
        points=points,
        terms=(_gaussian(float(native._gamma), dense(native.dual_coef_), points),),
        intercept=np.atleast_1d(np.asarray(native.intercept_, dtype=np.float64)),
    )


def _kernel_ridge(native: Any) -> Machine:
    if native.kernel != "rbf":
        msg = f"the {_kernel_name(native.kernel)} kernel of KernelRidge is no product over columns (an 'rbf' one is)"
        raise NotApplicable(msg)
    points = dense(native.X_fit_)
    gamma = 1.0 / points.shape[1] if native.gamma is None else float(native.gamma)
    weights = np.asarray(native.dual_coef_, dtype=np.float64).reshape(len(points), -1).T
    return Machine(
        points=points, terms=(_gaussian(gamma, weights, points),), intercept=np.zeros(len(weights))
    )


def _gaussian_process(native: Any) -> Machine:
    points = dense(native.X_train_)
    weights = np.asarray(native.alpha_, dtype=np.float64).reshape(len(points), -1).T
    spread = np.broadcast_to(np.asarray(getattr(native, "_y_train_std", 1.0), np.float64), len(weights))
    centre = np.broadcast_to(np.asarray(getattr(native, "_y_train_mean", 0.0), np.float64), len(weights))
    terms = tuple(
        Term(scale=np.sqrt(squares), weights=times * weights * spread[:, None])
        for times, squares in _sum_of_gaussians(native.kernel_, columns=points.shape[1])
    )
    return Machine(points=points, terms=terms, intercept=np.array(centre))


def _sum_of_gaussians(kernel: Any, *, columns: int) -> list[tuple[float, FloatArray]]:
    """Return factor and squared scales of each Gaussian in a kernel of different rows; a constant has scales of zero."""
    name = type(kernel).__name__
    if name == "Sum":
        return [
            *_sum_of_gaussians(kernel.k1, columns=columns),
            *_sum_of_gaussians(kernel.k2, columns=columns),
        ]
    if name == "Product":
        first, second = (_sum_of_gaussians(k, columns=columns) for k in (kernel.k1, kernel.k2))
        return [(a * b, x + y) for a, x in first for b, y in second]
    if name == "ConstantKernel":
        return [(float(kernel.constant_value), np.zeros(columns))]
    if name == "RBF":
        length = np.broadcast_to(np.asarray(kernel.length_scale, dtype=np.float64), columns)
        return [(1.0, 0.5 / length**2)]
    if name == "WhiteKernel":
        return []  # noise of the points themselves
    msg = f"the {name} kernel of the Gaussian process is no product over columns (an RBF one is)"
    raise NotApplicable(msg)


def _gaussian(gamma: float, weights: FloatArray, points: FloatArray) -> Term:
    return Term(scale=np.full(points.shape[1], np.sqrt(gamma)), weights=weights)


def _kernel_name(kernel: Any) -> str:
    return repr(kernel) if isinstance(kernel, str) else "own"


def dense(values: Any) -> FloatArray:
    """Return a matrix, sparse or not, as an array of floats."""
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


READERS: Mapping[str, Callable[[Any], Machine]] = {
    "GaussianProcessRegressor": _gaussian_process,
    "KernelRidge": _kernel_ridge,
    "NuSVC": _support_vectors,
    "NuSVR": _support_vectors,
    "SVC": _support_vectors,
    "SVR": _support_vectors,
}
