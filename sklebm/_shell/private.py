"""The only module that imports scikit-learn's underscored helpers.

scikit-learn documents these for third-party estimators but may move them; if it does, only this
file needs to change.
"""

from sklearn.base import _fit_context as fit_context
from sklearn.utils._available_if import _AvailableIfDescriptor as AvailableIf
from sklearn.utils._chunking import get_chunk_n_rows
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    RealNotInt,
    StrOptions,
)
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import (
    _check_feature_names as check_feature_names,
)
from sklearn.utils.validation import (
    _check_sample_weight as check_sample_weight,
)
from sklearn.utils.validation import (
    _get_feature_names as get_feature_names,
)

__all__ = [
    "AvailableIf",
    "BaseComposition",
    "HasMethods",
    "Interval",
    "InvalidParameterError",
    "MetadataRouter",
    "MethodMapping",
    "Options",
    "RealNotInt",
    "StrOptions",
    "check_feature_names",
    "check_sample_weight",
    "fit_context",
    "get_chunk_n_rows",
    "get_feature_names",
    "process_routing",
]
