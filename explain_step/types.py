"""The frozen values that flow through the package. No behaviour beyond validation lives here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from explain_step.threads import Pace

    FloatArray: TypeAlias = npt.NDArray[np.float64]
    IntArray: TypeAlias = npt.NDArray[np.int64]
else:  # `verify` needs `Finding` on machines that have neither
    FloatArray = IntArray = Any

Task = Literal["binary", "multiclass", "regression"]
OutputSpace = Literal["probability", "margin", "prediction"]
FeaturePerturbation = Literal["interventional", "correlation_dependent"]
Family = Literal["tree", "linear", "kernel", "blackbox"]
Direction = Literal["higher", "lower"]
Reads = Literal["probability", "label", "output"]
Status = Literal["pending", "complete", "degraded", "incomplete", "failed", "waived"]
Verdict = Literal["pass", "fail", "not_applicable", "undecided"]


def frozen_array(values: Any, *, dtype: Any = "float64") -> npt.NDArray[Any]:
    """Return a read-only copy of ``values``."""
    import numpy as np

    array = np.array(values, dtype=dtype, copy=True)
    array.setflags(write=False)
    return array


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodSpec:
    """Everything that influences a set of numbers: the method, its parameters, seed and budget.

    ``exact`` is True where the numbers are the defined quantity up to floating point, False where they are estimated.
    """

    name: str
    version: str
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    exact: bool = True
    budget: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a model says about n rows.

    Attributes
    ----------
    output : ndarray of shape (n, n_outputs)
        The explained quantity, in the model's declared output space.
    label : ndarray of shape (n,), optional
        Predicted class labels (classifiers), in the type of the classes.
    probability : ndarray of shape (n, n_classes), optional
        Class probabilities, where the model has them.
    prediction : ndarray of shape (n, n_outputs), optional
        A regression's prediction in the unit of its target, where the explained quantity is another one (the
        margin under a link).
    """

    output: FloatArray
    label: npt.NDArray[Any] | None = None
    probability: FloatArray | None = None
    prediction: FloatArray | None = None

    @property
    def predicted(self) -> FloatArray:
        """What a regression's target is compared with, of shape (n, n_outputs)."""
        return self.output if self.prediction is None else self.prediction

    def take(self, rows: IntArray) -> Response:
        """Return the response at the given row positions."""
        return Response(
            output=self.output[rows],
            label=None if self.label is None else self.label[rows],
            probability=None if self.probability is None else self.probability[rows],
            prediction=None if self.prediction is None else self.prediction[rows],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocessing:
    """Steps in front of the final estimator whose every derived column comes from one raw column.

    Attributes
    ----------
    transform : callable
        Raw frame of n rows to the derived matrix (ndarray, scipy sparse matrix or DataFrame) with n rows.
    sources : tuple of int
        For each derived column, the position of the raw column it is computed from.
    """

    transform: Callable[[pd.DataFrame], Any]
    sources: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedModel:
    """A fitted model seen through one interface. Never persisted.

    Attributes
    ----------
    respond : callable
        DataFrame of raw columns to `Response`; one underlying prediction call where possible.
    native : object
        The final estimator or booster, for exact explainers; None where only ``respond`` may be used.
    family : {"tree", "linear", "kernel", "blackbox"}
        The kind of ``native``.
    task : {"binary", "multiclass", "regression"}
        Regression with several outputs is "regression" with several ``output_names``.
    output_space : {"probability", "margin", "prediction"}
        What ``Response.output`` is measured in.
    output_names : tuple of str
        One name per explained output: the positive class (binary), the classes (multiclass), target names (regression).
    feature_names : tuple of str
        The raw input columns, in the order the model wants them.
    classes : tuple, optional
        Class labels of a classifier, in the order of the probability columns.
    positive : int, optional
        Position of the positive class in ``classes`` (binary).
    preprocessing : Preprocessing, optional
        Column-wise steps before ``native``; None means ``native`` reads the raw columns.
    model_class : str
        Class name for display.
    reason : str, optional
        Why ``family`` is "blackbox" although the model is of a known kind (shown to the reader).
    unjudged : str, optional
        Why no label is compared with the outputs although they are predictions: several of them are about one target.
    quantile : float, optional
        Level of the quantile of its target that a regression predicts.
    outputs : callable, optional
        ``respond(X).output`` alone, where it costs less (no labels, no second question to the model).
    scored : callable, optional
        From rows and what a metric reads ("probability", "label", "output") to a `Response` with that alone.
    derived_outputs : callable, optional
        ``outputs`` for rows that have been through ``preprocessing.transform``.
    trees : callable, optional
        What ``explainers.ensembles`` reads from ``native``, read once.
    pace : Pace, optional
        How quickly it answers, where few rows may be asked about in one thread.
    """

    respond: Callable[[pd.DataFrame], Response]
    native: Any
    family: Family
    task: Task
    output_space: OutputSpace
    output_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    classes: tuple[Any, ...] | None = None
    positive: int | None = None
    preprocessing: Preprocessing | None = None
    model_class: str = ""
    reason: str | None = None
    unjudged: str | None = None
    quantile: float | None = None
    outputs: Callable[[pd.DataFrame], FloatArray] | None = None
    scored: Callable[[pd.DataFrame, Reads], Response] | None = None
    derived_outputs: Callable[[Any], FloatArray] | None = None
    trees: Callable[[], Any] | None = None
    pace: Pace | None = None

    def respond_for(self, X: pd.DataFrame, *, reads: Reads) -> Response:
        """Return what a metric reads of the answers to the rows of ``X``; other fields may be empty."""
        return self.respond(X) if self.scored is None else self.scored(X, reads)

    def predict(self, X: pd.DataFrame) -> FloatArray:
        """Return the explained outputs of the rows of ``X``: array of shape (n, n_outputs)."""
        return self.respond(X).output if self.outputs is None else self.outputs(X)


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What is explained: a model, held-out rows, and the background they are compared with.

    Attributes
    ----------
    X : DataFrame of n rows
        Exactly the model's raw columns, in its order, with a fresh RangeIndex.
    frame : DataFrame of n rows
        All columns that were given (X and any further ones), for segments; same index.
    y : ndarray of shape (n,) or (n, n_outputs), optional
        Labels, in the type of ``model.classes`` (classifiers) or float.
    background : DataFrame of m rows
        Reference rows with the model's raw columns.
    background_name : str
        How the background is named to readers ("1,666 background rows given by the caller").
    weights : ndarray of shape (n,), optional
        Sample weights.
    row_ids : ndarray of shape (n,) of str
        Identity of the rows: the caller's index.
    target_name : str
        Name of the label.
    response : Response
        The model's answer on ``X``, computed once.
    strata : ndarray of int of shape (n,), optional
        The declared segment of each row: a sample of rows holds every segment in proportion.
    """

    model: FittedModel
    X: pd.DataFrame
    frame: pd.DataFrame
    y: npt.NDArray[Any] | None
    background: pd.DataFrame
    background_name: str
    weights: FloatArray | None
    row_ids: npt.NDArray[Any]
    target_name: str
    response: Response
    strata: IntArray | None = None

    def take(self, rows: IntArray) -> Subject:
        """Return the subject restricted to the given row positions."""
        return Subject(
            model=self.model,
            X=self.X.iloc[rows].reset_index(drop=True),
            frame=self.frame.iloc[rows].reset_index(drop=True),
            y=None if self.y is None else self.y[rows],
            background=self.background,
            background_name=self.background_name,
            weights=None if self.weights is None else self.weights[rows],
            row_ids=self.row_ids[rows],
            target_name=self.target_name,
            response=self.response.take(rows),
            strata=None if self.strata is None else self.strata[rows],
        )

    def without_inputs(self) -> Subject:
        """Return the subject with frames that have its rows and no column: what metrics read, cheap to `take` from."""
        return replace(self, X=self.X.iloc[:, :0], frame=self.frame.iloc[:, :0])


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributions:
    """Shapley values of the explained rows, on raw input columns.

    ``base_values[i, k] + values[i, :, k].sum()`` equals the model's output k for row i (efficiency).

    Attributes
    ----------
    values : ndarray of shape (n, n_features, n_outputs)
    base_values : ndarray of shape (n, n_outputs)
    standard_error : ndarray of shape (n, n_features, n_outputs), optional
        Monte Carlo standard error of each value; None where the method is exact.
    rows : ndarray of shape (n,)
        Positions in the subject's rows; all of them, or a sample where the budget does not reach.
    parts : ndarray of shape (parts, n, n_features, n_outputs), optional
        The same values from separate parts of the random draws; their mean is ``values``. They show the noise
        itself, where ``standard_error`` gives its size only.
    """

    values: FloatArray
    base_values: FloatArray
    feature_names: tuple[str, ...]
    output_names: tuple[str, ...]
    output_space: OutputSpace
    method: MethodSpec
    rows: IntArray
    standard_error: FloatArray | None = None
    parts: FloatArray | None = None

    def __post_init__(self) -> None:
        n, d, k = self.values.shape
        wanted = ((n, d, k), (len(self.rows), len(self.feature_names), len(self.output_names)))
        if wanted[0] != wanted[1] or self.base_values.shape != (n, k):
            msg = f"Attributions have shape {wanted[0]}, names and rows say {wanted[1]}, base {self.base_values.shape}."
            raise ValueError(msg)
        for name in ("values", "base_values", "standard_error", "parts"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, frozen_array(value))
        object.__setattr__(self, "rows", frozen_array(self.rows, dtype="int64"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A tidy table and what it means. The table is the record; a figure is a view of it.

    ``name`` is the file name without ending (``importance``); ``kind`` is the section it belongs to
    (``importance``, ``dependence``, ``segments``, ``examples``). ``meta`` is strict-JSON: how it was made, what its
    intervals cover, which quantity is explained.
    """

    name: str
    kind: str
    table: pd.DataFrame
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Caveat:
    """Something a reader must know. ``degrades`` caveats turn the status from complete to degraded."""

    code: str
    section: str
    message: str
    degrades: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What a builder returns: its artifacts and the caveats found on the way."""

    artifacts: tuple[Artifact, ...]
    caveats: tuple[Caveat, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One quality number of an explanation, with interval, direction, number of rows and method.

    ``value`` is None where the score is not defined for this model; ``reason`` then says why.
    """

    name: str
    variant: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    direction: Direction
    n: int
    method: MethodSpec
    source: str = ""
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A drawn figure: PNG bytes, a slug for the file name, and the text for those who do not see it."""

    kind: str
    slug: str
    png: bytes
    alt: str
    width: int
    height: int
    title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One checked rule: the shared vocabulary of verify, replay, gate and alerts."""

    code: str
    verdict: Verdict
    message: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SignatureFound:
    """A signature beside a snapshot, and whether it holds for the manifest by the key that it names.

    Whether the key is trusted is another question: its id, a digest of the public key, has to be listed.
    """

    key_id: str
    valid: bool
    reason: str = ""
    file: str = ""  # relative path, where it was read from a snapshot directory
