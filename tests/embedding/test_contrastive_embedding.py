"""What embeddings learn, from pairs of each kind."""

import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.manifold import trustworthiness
from sklearn.metrics import roc_auc_score
from sklearn.utils import get_tags
from torch import nn

import sklebm
from sklebm import ContrastiveEmbedding
from sklebm.embedding._views import UserViews, views_among
from sklebm.inference.image_views import ImageAugmentation
from sklebm.inference.views import FeatureCorruption, Groups, Labels, Neighbours
from sklebm.objectives import MaximumLikelihood, ScoreMatching
from sklebm.objectives.embedding import InfoNCE, MarginContrast
from sklebm.objectives.embedding_memory import MemoryBank, MomentumQueue
from sklebm.training.batches import TrainingRows
from tests.registry import fitted_state, freeze

SMALL = {
    "n_components": 4,
    "hidden_sizes": (16,),
    "head_sizes": (),
    "n_prototypes": 4,
    "learning_rate": 0.01,
    "batch_size": 50,
    "random_state": 0,
}


def make_classes(n_rows=300, seed=0):
    """Three classes along the first two features, drowned in four features of noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n_rows)
    angle = 2 * np.pi * y / 3
    centre = np.c_[np.cos(angle), np.sin(angle)]
    X = np.c_[centre + 0.3 * rng.normal(size=(n_rows, 2)), 3.0 * rng.normal(size=(n_rows, 4))]
    return X, y


def same_or_not(model, X, y):
    """AUROC of the similarity of pairs of one class against that of others."""
    similarity, upper = model.similarity(X, X), np.triu_indices(len(X), 1)
    return roc_auc_score((y[:, None] == y)[upper], similarity[upper])


@pytest.mark.parametrize(
    "objective",
    [
        "margin",
        "triplet",
        InfoNCE(0.5),
        MemoryBank(n_negatives=64),
        MomentumQueue(n_keys=128, momentum=0.9),
    ],
    ids=str,
)
def test_labels_find_what_tells_classes_apart(objective):
    X, y = make_classes()
    X_test, y_test = make_classes(200, seed=1)
    model = ContrastiveEmbedding(objective=objective, views="labels", max_epochs=20, **SMALL)
    start = sklebm.ContrastiveEmbedding(**{**model.get_params(), "learning_rate": 1e-12})
    before = same_or_not(start.set_params(max_epochs=1).fit(X, y), X_test, y_test)
    assert before < 0.7
    assert same_or_not(model.fit(X, y), X_test, y_test) > 0.9


def test_steps_close_in_time_find_what_changes_slowly():
    """A slow phase in the mean of noisy features: only time tells it from the noise."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 80)
    phase = np.concatenate([rng.uniform(0, 2 * np.pi) + np.arange(80) * 0.05 for _ in range(6)])
    slow = np.c_[np.cos(phase), np.sin(phase)]
    X = np.c_[slow + 0.2 * rng.normal(size=slow.shape), 3.0 * rng.normal(size=(480, 6))]
    model = ContrastiveEmbedding(views=Groups(3), max_epochs=40, **SMALL).fit(X, groups=groups)
    other = rng.uniform(0, 2 * np.pi, size=200)
    X_test = np.c_[np.cos(other), np.sin(other), 3.0 * rng.normal(size=(200, 6))]
    near, upper = np.cos(other[:, None] - other), np.triu_indices(200, 1)
    # Cosines of the phases against those of embeddings, of pairs of rows never seen in a sequence.
    learnt = np.corrcoef(model.similarity(X_test, X_test)[upper], near[upper])[0, 1]
    plain = np.corrcoef((X_test @ X_test.T)[upper], near[upper])[0, 1]
    assert learnt > 0.7
    assert plain < 0.3


def test_neighbours_recover_a_cylinder_of_images():
    """DrLIM: a spot that is moved around a ring and lit has two degrees of freedom."""
    rng = np.random.default_rng(0)
    position, light = rng.uniform(0, 2 * np.pi, 300), rng.uniform(0.5, 1.5, 300)
    pixels = 2 * np.pi * np.arange(40) / 40
    X = light[:, None] * np.exp(3.0 * np.cos(pixels - position[:, None]) - 3.0)
    truth = np.c_[np.cos(position), np.sin(position), light]
    settings = {**SMALL, "n_components": 3, "hidden_sizes": (64, 64), "learning_rate": 0.005}
    model = ContrastiveEmbedding(
        objective=MarginContrast(1.5),
        views=Neighbours(8),
        unit_length=False,
        max_epochs=60,
        **settings,
    ).fit(X)
    z = model.transform(X)
    assert trustworthiness(truth, z, n_neighbors=10) > 0.98
    # A circle and a line in three dimensions: neighbours around the circle join up.
    order = np.argsort(position)
    steps = np.linalg.norm(np.diff(z[np.r_[order, order[:1]]], axis=0), axis=1)
    assert steps.max() < 0.5 * np.linalg.norm(z[:, None] - z, axis=2).max()


def test_corrupted_features_make_a_detector_of_broken_dependence():
    """Each feature alone is as it should be; together they are not."""
    rng = np.random.default_rng(0)
    hidden = rng.integers(3, size=600)
    codes = rng.permuted(np.tile(np.linspace(-1, 1, 3), (8, 1)), axis=1)
    X = codes[:, hidden].T + 0.1 * rng.normal(size=(600, 8))
    train, test = X[:400], X[400:]
    broken = rng.permuted(test, axis=0)
    model = ContrastiveEmbedding(max_epochs=30, **SMALL).fit(train)
    labels = np.repeat([1, 0], 200)
    scores = model.score_samples(np.vstack([test, broken]))
    assert roc_auc_score(labels, scores) > 0.85
    X_rows = np.vstack([test, broken])
    energy = model.energy(X_rows, model.transform(X_rows))
    np.testing.assert_allclose(energy, 0.0, atol=1e-12)


def test_image_views_need_no_labels():
    """Bars at two angles, anywhere: their pixels hardly overlap, their embeddings do."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=240)
    images = np.zeros((240, 12, 12))
    for image, kind in zip(images, y, strict=True):
        begin, place = rng.integers(0, 4), rng.integers(1, 11)
        line = image[place, begin : begin + 8] if kind else image[begin : begin + 8, place]
        line += 1.0
    X = images.reshape(240, -1) + 0.05 * rng.normal(size=(240, 144))
    views = ImageAugmentation(shift=0.3, crop=0.0, rotate=0.0, blur=0.0, erase=0.0)
    model = ContrastiveEmbedding(
        8,
        image_shape=(12, 12),
        hidden_sizes=(8, 16),
        head_sizes=(),
        views=views,
        learning_rate=0.01,
        batch_size=80,
        max_epochs=40,
        random_state=0,
    ).fit(X)
    z = model.transform(X)
    pixels = np.triu_indices(240, 1)
    same = (y[:, None] == y)[pixels]
    learnt = roc_auc_score(same, (z @ z.T)[pixels])
    assert learnt > 0.75
    assert roc_auc_score(same, (X @ X.T)[pixels]) < 0.65


def test_views_of_the_user_see_rows_in_the_units_of_x():
    X = 1e3 + 50.0 * np.random.default_rng(0).normal(size=(100, 6))
    seen = []

    def noisy(rows, generator):
        seen.append(rows)
        return rows + torch.empty_like(rows).normal_(generator=generator)

    model = ContrastiveEmbedding(views=noisy, max_epochs=2, **SMALL).fit(X)
    assert seen[0].shape == (50, 6)
    assert float(torch.cat(seen).mean()) == pytest.approx(1e3, rel=0.01)
    assert np.isfinite(model.score_samples(X)).all()
    images = ContrastiveEmbedding(views=noisy, image_shape=(2, 3), max_epochs=1, **SMALL).fit(X)
    assert seen[-1].shape == (50, 1, 2, 3)
    with pytest.raises(TypeError, match="views is a"):
        sklebm.save(images, "never.safetensors")
    for views, message in (
        (lambda rows, generator: rows[:1], "one view of each"),
        (lambda rows, generator: rows * torch.nan, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            ContrastiveEmbedding(views=views, max_epochs=1, **SMALL).fit(X)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        ({"views": "labels"}, {}, "needs y"),
        ({"views": "labels"}, {"y": np.linspace(0, 1, 60)}, "class labels"),
        ({"views": "labels"}, {"y": np.zeros((60, 2), int)}, "class labels"),
        ({"views": "labels"}, {"y": ["a", None, 1] * 20}, "mixes labels of the types"),
        ({"views": Labels()}, {"y": ["a"] * 60}, "y holds one class"),
        ({"views": "groups"}, {}, "needs groups"),
        ({}, {"groups": np.zeros(60)}, "does not use it"),
        ({"views": ImageAugmentation()}, {}, "set image_shape"),
        ({"head_sizes": (0,)}, {}, "projection head"),
        ({"optimizer": "lbfgs", "objective": "info_nce"}, {}, "samples"),
        ({"objective": ScoreMatching()}, {}, "ScoreMatching compares no views"),
        ({"objective": MaximumLikelihood()}, {}, "MaximumLikelihood needs"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings, data, message):
    X = np.random.default_rng(0).normal(size=(60, 6))
    with pytest.raises(ValueError, match=message):
        ContrastiveEmbedding(**{**SMALL, **settings}).fit(X, **data)


def test_collapse_is_named_with_the_effective_rank():
    """Rows on a line have embeddings on a line, whatever an affine encoder does."""
    X = np.random.default_rng(0).normal(size=(100, 1)) * np.ones(6)
    settings = {**SMALL, "n_components": 20, "hidden_sizes": (), "unit_length": False}
    with pytest.warns(UserWarning, match=r"effective rank is 1, below 2, of 20 components"):
        model = ContrastiveEmbedding(max_epochs=2, **settings).fit(X)
    assert model.effective_rank_ == pytest.approx(1.0, abs=1e-3)
    few = {**settings, "n_components": 3}
    with pytest.warns(UserWarning, match=r"effective rank is 1, below 1.1, of 3 components"):
        ContrastiveEmbedding(max_epochs=2, **few).fit(X)
    rows = np.random.default_rng(0).normal(size=(100, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        spread = ContrastiveEmbedding(max_epochs=2, **SMALL).fit(rows)
    assert 1.0 < spread.effective_rank_ <= 4.0


def test_a_collapse_to_nearly_one_point_is_named():
    """Directions of 1 + 0.001 W x differ by thousandths, in all four of them."""

    class Point(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.map = nn.Linear(n_inputs, n_outputs)

        def forward(self, x):
            return 1.0 + 1e-3 * self.map(x)

    X = np.random.default_rng(0).normal(size=(100, 6))
    with pytest.warns(UserWarning, match=r"mean squared distance from their mean is .*e-0[67]"):
        ContrastiveEmbedding(encoder=Point, max_epochs=1, **{**SMALL, "learning_rate": 1e-9}).fit(X)


def test_labels_may_be_of_any_kind():
    X, y = make_classes(120)
    settings = {**SMALL, "max_epochs": 2}
    expected = ContrastiveEmbedding(views="labels", **settings).fit(X, y).transform(X)
    names = np.array(["no", "perhaps", "yes"])
    for labels in (names[y], names.astype(object)[y], names[y].tolist(), 2.0 * y, torch.tensor(y)):
        model = ContrastiveEmbedding(views="labels", **settings).fit(X, labels)
        np.testing.assert_array_equal(model.transform(X), expected)
    assert get_tags(model).target_tags.required
    assert not get_tags(ContrastiveEmbedding()).target_tags.required


def test_views_as_objects_take_groups_in_the_same_order_as_their_names():
    X = np.random.default_rng(0).normal(size=(90, 6))
    groups = np.repeat(np.arange(3), 30)
    named, given = (
        ContrastiveEmbedding(views=views, max_epochs=2, **SMALL).fit(X, groups=groups)
        for views in ("groups", Groups(1))
    )
    np.testing.assert_array_equal(named.transform(X), given.transform(X))
    assert named._layout == given._layout == "step"


@pytest.mark.parametrize("objective", ["info_nce", "nce_memory_bank", "momentum_queue"])
def test_no_training_row_is_stored(objective):
    X = np.random.default_rng(0).normal(size=(337, 6))
    model = ContrastiveEmbedding(
        objective=objective, views="neighbours", max_epochs=1, **SMALL
    ).fit(X)

    def lengths(value):
        if isinstance(value, dict):
            return [n for item in value.values() for n in lengths(item)]
        return list(np.shape(value))

    assert 337 not in lengths(fitted_state(model))


def test_embeddings_have_unit_length_unless_asked_otherwise():
    X = np.random.default_rng(0).normal(size=(90, 6))
    unit = ContrastiveEmbedding(max_epochs=2, **SMALL).fit(X)
    np.testing.assert_allclose(np.linalg.norm(unit.transform(X), axis=1), 1.0, rtol=1e-12)
    free = ContrastiveEmbedding(max_epochs=2, unit_length=False, **SMALL).fit(X)
    assert np.linalg.norm(free.transform(X), axis=1).std() > 0.01
    z = free.transform(X)
    distances = np.linalg.norm(z[:5, None] - z[None, :7], axis=2)
    np.testing.assert_allclose(free.similarity(X[:5], X[:7]), -distances, atol=1e-12)
    cosines = unit.transform(X[:5]) @ unit.transform(X[:7]).T
    np.testing.assert_allclose(unit.similarity(X[:5], X[:7]), cosines, atol=1e-12)
    head = {**SMALL, "head_sizes": (8, 3)}
    kept = ContrastiveEmbedding(max_epochs=2, keep_head=True, **head).fit(X)
    assert kept.transform(X).shape == (90, 3)
    assert kept.get_feature_names_out().shape == (3,)


def test_a_queue_goes_on_where_training_goes_on():
    X = np.random.default_rng(0).normal(size=(100, 6))
    queue = MomentumQueue(n_keys=30)
    model = ContrastiveEmbedding(objective=queue, max_epochs=1, warm_start=True, **SMALL).fit(X)
    before = model.training_state_["objective.queue"]
    assert before.shape == (30, 4)
    model.partial_fit(X[:10])
    after = model.training_state_["objective.queue"]
    np.testing.assert_array_equal(after[:20], before[10:])
    slow = model.training_state_["objective.slow.encoder.0.weight"]
    assert not np.array_equal(slow, model.weights_["encoder.0.weight"])
    assert freeze(model.fit(X).training_state_) != freeze(after)


def test_prototypes_of_a_stream_are_running_means():
    X = np.random.default_rng(0).normal(size=(200, 6))
    settings = {**SMALL, "learning_rate": 1e-12}
    model = ContrastiveEmbedding(**settings).partial_fit(X[:3])
    assert model.prototypes_.shape == (3, 4)  # as many as there were rows
    for part in np.array_split(X[3:], 9):
        model.partial_fit(part)
    assert model.prototypes_.shape == (4, 4)
    assert model.prototype_counts_.sum() == 200
    z = model.transform(X)
    total = model.prototype_counts_ @ model.prototypes_
    # The encoder stood still, in single precision, so that the means are those of all embeddings.
    np.testing.assert_allclose(total, z.sum(axis=0), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.embedding_mean_, z.mean(axis=0), atol=1e-6)
    spread = np.square(z - z.mean(axis=0)).sum(axis=1).mean()
    assert model.embedding_spread_ == pytest.approx(spread, rel=1e-5)


def test_a_row_whose_energy_overflows_is_named():
    X = np.random.default_rng(0).normal(size=(60, 6))
    model = ContrastiveEmbedding(max_epochs=1, unit_length=False, **SMALL).fit(X)
    X[3] = 1e300
    for method in (model.free_energy, model.score_samples):
        with pytest.raises(FloatingPointError, match=r"row 3 \(largest \|X\| there: 1e\+300\)"):
            method(X)


def test_an_encoder_of_the_user():
    class Wide(nn.Module):
        def __init__(self, n_inputs, n_outputs):
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(n_inputs, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, n_outputs)
            )

        def forward(self, x):
            return self.layers(x)

    X, y = make_classes()
    model = ContrastiveEmbedding(encoder=Wide, views="labels", max_epochs=10, **SMALL).fit(X, y)
    X_test, y_test = make_classes(200, seed=1)
    assert same_or_not(model, X_test, y_test) > 0.9


def test_validation_follows_the_objective_with_the_same_views():
    X, y = make_classes()
    for objective in ("margin", "info_nce", "momentum_queue"):
        model = ContrastiveEmbedding(
            objective=objective,
            views="labels",
            validation_fraction=0.3,
            max_epochs=15,
            **SMALL,
        ).fit(X, y)
        scores = model.validation_scores_
        assert scores.shape == (15,)
        assert scores[-3:].mean() > scores[0]


def test_parameters_given_by_hand():
    weights = {"encoder.0.weight": np.eye(2), "encoder.0.bias": np.zeros(2)}
    model = ContrastiveEmbedding.from_parameters(
        weights={name: w.astype(np.float32) for name, w in weights.items()},
        prototypes=[[1.0, 0.0], [0.0, 1.0]],
        feature_means=[0.0, 0.0],
        n_components=2,
        hidden_sizes=(),
        head_sizes=(),
    )
    X = np.array([[5.0, 0.0], [3.0, 4.0]])
    np.testing.assert_allclose(model.transform(X), [[1.0, 0.0], [0.6, 0.8]])
    np.testing.assert_allclose(model.free_energy(X), [0.0, 0.6**2 + 0.2**2])
    with pytest.raises(TypeError, match="needs weights"):
        ContrastiveEmbedding.from_parameters(prototypes=[[1.0, 0.0]])
    with pytest.raises(TypeError, match="number of features"):
        ContrastiveEmbedding.from_parameters(weights=weights, prototypes=[[1.0, 0.0]])


def test_classes_in_a_queue_are_not_mixed_up_between_chunks():
    """Codes of classes are those of one chunk: "b" is 0 in the first and 1 in the second."""
    X = np.random.default_rng(0).normal(size=(40, 4))
    model = ContrastiveEmbedding(
        objective=MomentumQueue(n_keys=64), views="labels", max_epochs=1, **SMALL
    )
    model.partial_fit(X, np.repeat(["b", "c"], 20))
    assert not [name for name in model.training_state_ if "queue_rows" in name]
    model.partial_fit(X, np.repeat(["a", "b"], 20))


class Watched(nn.Linear):
    """An affine encoder that remembers the rows that it learns from."""

    seen: ClassVar[set[bytes]] = set()

    def forward(self, x):
        if self.training:
            Watched.seen.update(row.tobytes() for row in x.detach().numpy())
        return super().forward(x)


@pytest.mark.parametrize("objective", ["info_nce", "nce_memory_bank", "momentum_queue"])
@pytest.mark.parametrize("views", ["neighbours", "labels", "groups"])
def test_rows_held_out_are_no_views_in_training(views, objective):
    X, y = make_classes(100)
    data = {"labels": {"y": y}, "groups": {"groups": np.repeat([0, 1], 50)}}.get(views, {})
    Watched.seen.clear()
    model = ContrastiveEmbedding(
        views=views,
        objective=objective,
        encoder=Watched,
        validation_fraction=0.3,
        max_epochs=3,
        **SMALL,
    ).fit(X, **data)
    assert len(Watched.seen) == 70
    assert np.isfinite(model.validation_scores_).all()


def test_views_of_a_held_out_row_are_those_among_all_rows():
    """Rows of pairs: the only neighbour that a held-out row resembles may be one that was kept."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(50, 6)), 2, axis=0) + 1e-3 * rng.normal(size=(100, 6))
    shown = []

    class Seen(Watched):
        def forward(self, x):
            if not self.training and len(x) == 20:  # two views of each of ten held-out rows
                shown.append(x.detach().numpy())
            return super().forward(x)

    ContrastiveEmbedding(
        views=Neighbours(1), encoder=Seen, validation_fraction=0.1, max_epochs=1, **SMALL
    ).fit(X)
    first, second = np.split(shown[0], 2)
    # Rows of a pair are thousandths apart, those of different pairs whole units.
    assert np.linalg.norm(first - second, axis=1).max() < 0.1


def test_views_share_the_rows_of_the_batches_or_hold_none():
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    for view, reads in (
        (FeatureCorruption(), True),
        (Neighbours(), True),
        (ImageAugmentation(), False),
        (UserViews(lambda rows, generator: rows, None), False),
    ):
        kept = TrainingRows(x, columns={"target": torch.arange(5, 35)})
        rows = views_among(kept, view, (1, 2, 2)).source.rows
        assert (rows is x) if reads else (rows is None)
        assert kept.columns["target"].tolist() == list(range(30))


@pytest.mark.parametrize("views", [Neighbours, Labels, ImageAugmentation])
def test_a_class_in_place_of_views_is_refused(views):
    X, y = make_classes(60)
    model = ContrastiveEmbedding(views=views, **SMALL)
    for learn in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=rf"is a class.*pass {views.__name__}\(\)"):
            learn(X, y)


@pytest.mark.parametrize("unit_length", [True, False])
def test_a_similarity_is_that_of_the_fitted_embedding(unit_length):
    X, _ = make_classes(60)
    model = ContrastiveEmbedding(max_epochs=1, unit_length=unit_length, **SMALL).fit(X)
    before = model.similarity(X[:5], X)
    np.testing.assert_array_equal(
        model.set_params(unit_length=not unit_length).similarity(X[:5], X), before
    )


def test_an_objective_with_other_heads_cannot_go_on():
    X, _ = make_classes(60)
    model = ContrastiveEmbedding(max_epochs=1, warm_start=True, **SMALL).fit(X)
    model.set_params(objective="nce_memory_bank")
    with pytest.raises(
        ValueError, match=r"^objective='nce_memory_bank' .* n_heads=2, .* the fitted 1"
    ):
        model.fit(X)
    model.set_params(objective="momentum_queue", unit_length=False)
    with pytest.raises(ValueError, match=r"^unit_length=False differs from the fitted True"):
        model.fit(X)
