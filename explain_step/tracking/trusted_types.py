"""Types that a skops file may ask for without being able to run code.

The file beside it, ``MLmodel``, lists what it asks for, and so cannot vouch for itself: whoever writes the model writes
the list. A whole package cannot be trusted either. NumPy has functions that execute text or load pickles, and SciPy's
distributions execute a template out of their own state. So the list is of names: classes that hold fitted numbers, and
metrics that only compute. What skops trusts by itself (scikit-learn's estimators, NumPy's ufuncs) need not be named.
"""

from __future__ import annotations

import re
from typing import Any

_NAMES = (
    r"collections\.(OrderedDict|defaultdict|Counter)",
    r"numpy\.(dtype|mean|median|bool_|object_|str_|int(32|64)|float(32|64))",
    r"scipy\.interpolate\._bsplines\.BSpline",
    r"scipy\._lib\.array_api_compat\.numpy\._aliases\.asarray",
    r"scipy\.sparse\._\w+\.\w+_(matrix|array)",
    r"xgboost\.core\.Booster",
    r"xgboost\.sklearn\.XGB\w+",
    r"lightgbm\.basic\.Booster",
    r"lightgbm\.sklearn\.LGBM\w+",
    r"catboost\.core\.CatBoost(Classifier|Regressor|Ranker)?",
    r"sklearn\._loss\.(loss|link)\.[A-Z]\w+",
    r"sklearn\.calibration\._(CalibratedClassifier|SigmoidCalibration|TemperatureScaling)",
    r"sklearn\.cluster\._bisect_k_means\._BisectingTree",
    r"sklearn\.cluster\._kmeans\._kmeans_single_(lloyd|elkan)",
    r"sklearn\.compose\._column_transformer\.(make_column_selector|_RemainderColsList)",
    r"sklearn\.ensemble\._hist_gradient_boosting\.(predictor\.TreePredictor|binning\._BinMapper)",
    r"sklearn\.feature_selection\._univariate_selection\.(chi2|f_classif|f_regression|r_regression)",
    r"sklearn\.feature_selection\._mutual_info\.mutual_info_(classif|regression)",
    r"sklearn\.gaussian_process\._gpc\._BinaryGaussianProcessClassifierLaplace",
    r"sklearn\.gaussian_process\.kernels\.(CompoundKernel|ConstantKernel|DotProduct|ExpSineSquared|Exponentiation)",
    r"sklearn\.gaussian_process\.kernels\.(Matern|PairwiseKernel|Product|RBF|RationalQuadratic|Sum|WhiteKernel)",
    r"sklearn\.linear_model\._sgd_fast\.[A-Z]\w+",
    r"sklearn\.metrics\._(classification|ranking|regression)\.\w+_(score|error|loss)",
    r"sklearn\.metrics\._dist_metrics\.[A-Z]\w*Distance(32|64)?",
    r"sklearn\.metrics\._scorer\._(Passthrough|Predict|Proba|Threshold|Curve)?Scorer",
    r"sklearn\.model_selection\._split\.\w*(KFold|LeaveOneOut|LeavePOut|ShuffleSplit|TimeSeriesSplit|PredefinedSplit)",
    r"sklearn\.multiclass\._ConstantPredictor",
    r"sklearn\.neighbors\._(kd_tree\.KD|ball_tree\.Ball)Tree(32|64)?",
    r"sklearn\.neural_network\._stochastic_optimizers\.(Adam|SGD)Optimizer",
    r"sklearn\.tree\._tree\.Tree",
    r"sklearn\.utils\._bunch\.Bunch",
    r"sklearn\.utils\._metadata_requests\.(Method)?MetadataRequest",
)
_KNOWN = re.compile("|".join(f"(?:{name})" for name in _NAMES))


def foreign_types(listed: Any) -> list[str]:
    """Return what a model's list of trusted types holds beyond types that are known to hold data.

    Parameters
    ----------
    listed : list of str, optional
        ``skops_trusted_types`` of a flavor. Anything else than a list of texts is foreign as a whole.

    Examples
    --------
    >>> foreign_types(["sklearn.tree._tree.Tree", "numpy.load"])
    ['numpy.load']
    """
    if listed is None:
        return []
    if not isinstance(listed, list):
        return [str(listed)[:80]]
    return [str(name)[:80] for name in listed if not isinstance(name, str) or not _KNOWN.fullmatch(name)]
