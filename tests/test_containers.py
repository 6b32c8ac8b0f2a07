"""One door in, one door out: results come in the caller's kind, device and dtype."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils import get_tags

from sklebm._shell.rows import resolve_device
from tests.registry import (
    NAMES,
    fitted_state,
    freeze,
    is_gradient_trained,
    make,
    make_rows,
    make_variants,
    names_with,
    row_methods,
    takes,
)

every = pytest.mark.parametrize("name", NAMES)
COLUMNS = [f"pixel {index}" for index in range(6)]

# Rounding of single-precision sums, and of double-precision ones on a GPU.
SINGLE, DOUBLE = 1e-4, 1e-9


def floating_methods(model):
    """Row-wise methods whose results are real numbers."""
    return [name for name in row_methods(model) if name != "predict"]


@every
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_preserved(name, dtype):
    X = make_rows(dtype=dtype)
    for model in make_variants(name):
        model.fit(X)
        for method in floating_methods(model):
            assert getattr(model, method)(X).dtype == dtype, method
        if hasattr(model, "inverse_transform"):
            assert model.inverse_transform(model.transform(X)).dtype == dtype
        if hasattr(model, "predict"):
            # A label, or, of a model of sequences, the row to come.
            answer = model.predict(X)
            assert answer.dtype == dtype if answer.shape == X.shape else answer.dtype.kind == "i"


@every
def test_float32_and_float64_fits_agree(name):
    X = make_rows(dtype=np.float32)
    single, double = make(name).fit(X), make(name).fit(X.astype(np.float64))
    expected = double.score_samples(X.astype(np.float64))
    np.testing.assert_allclose(single.score_samples(X), expected, rtol=1e-3, atol=1e-3)


@every
def test_tensor_in_tensor_out(name, device, dtype):
    X = make_rows(dtype=dtype)
    tensor = torch.from_numpy(X).to(device)
    for model in make_variants(name):
        model.fit(tensor)
        reference = make(name, **model.get_params(deep=False)).fit(X)
        for method in row_methods(model):
            result, expected = getattr(model, method)(tensor), getattr(reference, method)(X)
            assert isinstance(result, torch.Tensor), method
            assert result.device.type == device.type
            assert not result.requires_grad
            assert result.cpu().numpy().dtype == expected.dtype
            if is_gradient_trained(model) and device.type != "cpu":
                continue  # another device draws other noise: another, equally good, model
            tolerance = DOUBLE if dtype == np.float64 else SINGLE
            np.testing.assert_allclose(
                result.cpu(), expected, rtol=tolerance, atol=tolerance, err_msg=method
            )
        for key, value in fitted_state(model).items():
            assert not isinstance(value, torch.Tensor), key


@every
def test_a_model_fitted_on_a_device_scores_arrays_and_back(name, device):
    X = make_rows()
    model = make(name).fit(torch.from_numpy(X).to(device))
    scores = model.score_samples(torch.from_numpy(X).to(device))
    here = model.score_samples(X)
    assert isinstance(here, np.ndarray)
    np.testing.assert_allclose(scores.cpu(), here, rtol=1e-4, atol=1e-4)


@every
def test_tensors_that_require_gradients_are_data(name):
    X = torch.from_numpy(make_rows()).requires_grad_()
    model = make(name).fit(X)
    assert freeze(fitted_state(model)) == freeze(fitted_state(make(name).fit(X.detach())))
    assert not model.score_samples(X).requires_grad
    assert X.grad is None
    assert X.requires_grad


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_answer_in_single(name, dtype):
    X = torch.from_numpy(make_rows()).to(dtype)
    model = make(name).fit(X)
    scores = model.score_samples(X)
    assert scores.dtype == torch.float32
    np.testing.assert_array_equal(scores, model.score_samples(X.float()))


@every
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_integer_tensors_are_numbers(name, dtype):
    X = (torch.from_numpy(make_rows(noise=0.5)) > 0.5).to(dtype)
    model = make(name).fit(X)
    np.testing.assert_array_equal(model.score_samples(X), model.score_samples(X.double()))


@every
def test_strided_tensors_and_arrays(name):
    wide = np.repeat(make_rows(), 2, axis=1)
    model = make(name).fit(wide[:, ::2])
    expected = model.score_samples(np.ascontiguousarray(wide[:, ::2]))
    views = [wide[:, ::2], np.asfortranarray(wide[:, ::2]), torch.from_numpy(wide)[:, ::2]]
    views.append(np.ascontiguousarray(wide[::-1, ::2])[::-1])
    views.append(torch.from_numpy(np.ascontiguousarray(wide[:, ::2].T)).T)
    for view in views:  # scores may cross zero, where terms of order 1 cancel
        np.testing.assert_allclose(model.score_samples(view), expected, rtol=1e-12, atol=1e-12)


@every
def test_array_api_dispatch_keeps_tensors(name):
    X = torch.from_numpy(make_rows())
    counts = get_tags(make(name)).input_tags.positive_only
    model = make_pipeline(MinMaxScaler() if counts else StandardScaler(), make(name))
    with sklearn.config_context(array_api_dispatch=True):
        assert isinstance(model.fit(X).score_samples(X), torch.Tensor)


# ---------------------------------------------------------------- data frames


FRAMES = {
    "pandas": lambda X: pd.DataFrame(X, columns=COLUMNS),
    "polars": lambda X: pl.DataFrame(X, schema=COLUMNS),
}


@every
@pytest.mark.parametrize("kind", FRAMES)
def test_frames_are_tables_of_numbers_with_names(name, kind):
    frame = FRAMES[kind](make_rows())
    model = make(name).fit(frame)
    assert list(model.feature_names_in_) == COLUMNS
    for method in row_methods(model):
        expected = getattr(make(name).fit(make_rows()), method)(make_rows())
        result = getattr(model, method)(frame)
        assert isinstance(result, np.ndarray)
        np.testing.assert_array_equal(result, expected)


@every
@pytest.mark.parametrize("kind", FRAMES)
def test_columns_in_another_order_are_refused(name, kind):
    frame = FRAMES[kind](make_rows())
    model = make(name).fit(frame)
    for method in [
        *row_methods(model),
        *(["partial_fit"] if hasattr(model, "partial_fit") else []),
    ]:
        with pytest.raises(ValueError, match="feature names should match"):
            getattr(model, method)(frame[COLUMNS[::-1]])


@every
def test_arrays_after_frames_warn(name):
    model = make(name).fit(FRAMES["pandas"](make_rows()))
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        model.score_samples(make_rows())


@every
def test_arrays_forget_the_names_of_an_earlier_fit(name):
    model = make(name).fit(FRAMES["pandas"](make_rows())).fit(make_rows())
    assert not hasattr(model, "feature_names_in_")


@pytest.mark.parametrize("name", names_with("transform"))
@pytest.mark.parametrize("kind", FRAMES)
def test_set_output_makes_frames_with_feature_names(name, kind):
    frame = FRAMES[kind](make_rows())
    for model in make_variants(name):
        model.set_output(transform=kind).fit(frame)
        codes = model.transform(frame)
        assert type(codes) is type(frame)
        names = model.get_feature_names_out()
        assert list(codes.columns) == list(names)
        assert all(column.startswith(name.lower()) for column in names)
        assert codes.shape == (len(make_rows()), len(names))
        # Scores stay arrays, and a tensor becomes a frame too, as everywhere in scikit-learn.
        assert isinstance(model.score_samples(frame), np.ndarray)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a tensor has no feature names
            from_tensor = model.transform(torch.from_numpy(make_rows()))
        np.testing.assert_array_equal(from_tensor.to_numpy(), codes.to_numpy())
        if hasattr(model, "inverse_transform"):
            assert model.inverse_transform(codes).shape == (len(make_rows()), 6)


@pytest.mark.parametrize("name", names_with("transform"))
def test_fit_transform_is_fit_then_transform(name):
    X = make_rows()
    for model in make_variants(name):
        codes = model.fit_transform(X)
        np.testing.assert_array_equal(codes, model.transform(X))


# ---------------------------------------------------------------- devices


with_device = pytest.mark.parametrize("name", [n for n in NAMES if takes(make(n), "device")])


@with_device
@pytest.mark.parametrize("place", ["cuda:99", "meta", "gpu", ""])
def test_devices_that_do_not_exist_are_refused(name, place):
    model = make(name, device=place)
    with pytest.raises(ValueError, match=r"device=.*cannot be used here") as caught:
        model.fit(make_rows())
    assert repr(place) in str(caught.value)
    assert "forked" not in str(caught.value)
    assert 'device="auto"' in str(caught.value)
    assert not fitted_state(model)


def test_a_forked_process_is_told_to_start_another_way(monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(ValueError, match=r'device="cpu"\. A forked process .* loky or spawn'):
        resolve_device("cuda", None, prefers_cuda=True)


@with_device
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused(name):
    with pytest.raises(ValueError, match="0 CUDA device"):
        make(name, device="cuda").fit(make_rows())


@with_device
def test_device_objects_and_names_mean_the_same(name, device):
    by_name = make(name, device=str(device)).fit(make_rows())
    by_object = make(name, device=device).fit(make_rows())
    assert freeze(fitted_state(by_name)) == freeze(fitted_state(by_object))
