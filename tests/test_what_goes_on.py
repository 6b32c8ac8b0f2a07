"""What ``partial_fit`` adds to: running means, of every model trained by gradients."""

import numpy as np
import pytest

from tests.registry import NAMES, is_gradient_trained, make, make_brief, make_rows

LEARNERS = [n for n in NAMES if is_gradient_trained(make(n)) and hasattr(make(n), "partial_fit")]


@pytest.mark.parametrize("name", LEARNERS)
def test_feature_means_are_those_of_all_rows_so_far(name):
    """Chunks of other sizes and other means; after ``fit``, and from the beginning."""
    X = make_rows(90)
    X = X[np.argsort(X.sum(axis=1), kind="stable")]  # the chunks differ
    chunks = X[:50], X[50:60], X[60:]
    assert np.abs(chunks[0].mean(axis=0) - chunks[2].mean(axis=0)).max() > 0.2
    for start in ("fit", "partial_fit"):
        model = getattr(make_brief(name), start)(chunks[0])
        for n, chunk in ((60, chunks[1]), (90, chunks[2])):
            model.partial_fit(chunk)
            assert model.n_samples_seen_ == n
            # Means are summed in double precision.
            np.testing.assert_allclose(model.feature_means_, X[:n].mean(axis=0), atol=1e-6)
