"""Views: what they may come from, and how often they do."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from sklebm.inference.image_views import ImageAugmentation, blurred
from sklebm.inference.views import FeatureCorruption, Groups, Labels, Neighbours, Source

STILL = dict.fromkeys(
    ("shift", "crop", "flip", "rotate", "blur", "brightness", "contrast", "erase", "colour"), 0.0
)


def drawn(view, source, index=None, seed=0):
    rows = source.rows
    index = torch.arange(len(rows)) if index is None else index
    generator = torch.Generator().manual_seed(seed)
    return view.draw(rows[index], index, source, view.prepare(source), generator)


def test_corrupted_features_come_from_their_own_column():
    rows = torch.arange(4000.0).reshape(1000, 4)  # every value tells its row and its column
    views = drawn(FeatureCorruption(0.3), Source(rows, None, (4,)))
    assert bool((views % 4 == rows % 4).all())
    # 4000 features, of which .3 are replaced, a thousandth of them by themselves.
    share = float((views != rows).double().mean())
    assert share == pytest.approx(0.3 * 0.999, abs=4 * math.sqrt(0.3 * 0.7 / 4000))


def test_replacements_are_draws_from_all_rows_of_the_marginal():
    rows = torch.tensor([[0.0], [1.0], [1.0], [1.0]])
    source = Source(rows, None, (1,))
    index = torch.zeros(20_000, dtype=torch.long)
    views = drawn(FeatureCorruption(0.5), source, index)
    # A replacement is 1 with probability 3 / 4.
    assert float(views.mean()) == pytest.approx(0.375, abs=4 * math.sqrt(0.25 / 20_000))


def test_neighbours_are_those_of_scikit_learn():
    X = np.random.default_rng(0).normal(size=(200, 5))
    source = Source(torch.tensor(X), None, (5,))
    found = Neighbours(4).prepare(source)["neighbours"].sort(dim=1).values
    expected = NearestNeighbors(n_neighbors=4).fit(X).kneighbors(return_distance=False)
    np.testing.assert_array_equal(found, np.sort(expected, axis=1))
    views = drawn(Neighbours(4), source)
    places = [int((source.rows == view).all(dim=1).nonzero()[0]) for view in views]
    assert all(place in row for place, row in zip(places, expected, strict=True))
    index = torch.arange(200)
    related = Neighbours(4).related(index, index, Neighbours(4).prepare(source)).numpy()
    truth = np.zeros((200, 200), dtype=bool)
    truth[np.repeat(np.arange(200), 4), expected.ravel()] = True
    np.testing.assert_array_equal(related, truth | truth.T)
    few = torch.tensor([150, 3, 77])
    part = Neighbours(4).related(index, few, Neighbours(4).prepare(source)).numpy()
    np.testing.assert_array_equal(part, related[:, few])


def test_few_rows_have_few_neighbours():
    pair = Source(torch.tensor([[0.0], [5.0]]), None, (1,))
    assert drawn(Neighbours(9), pair).tolist() == [[5.0], [0.0]]
    assert drawn(Neighbours(9), Source(pair.rows[:1], None, (1,))).tolist() == [[0.0]]


def test_labels_draw_every_other_row_of_the_class_equally_often():
    kinds = torch.tensor([7, 3, 7, 3, 7, 9, 7])
    source = Source(torch.arange(7.0)[:, None], kinds, (1,))
    index = torch.zeros(30_000, dtype=torch.long)
    found = drawn(Labels(), source, index)[:, 0].long()
    counts = torch.bincount(found, minlength=7).double() / 30_000
    expected = [0, 0, 1 / 3, 0, 1 / 3, 0, 1 / 3]
    np.testing.assert_allclose(counts, expected, atol=4 * math.sqrt(2 / 9 / 30_000))
    assert float(drawn(Labels(), source, torch.tensor([5]))) == 5.0  # alone in its class
    every = torch.arange(7)
    related = Labels().related(every, every, Labels().prepare(source))
    assert bool((related == (kinds[:, None] == kinds)).all())


def test_steps_close_in_time_stay_within_their_sequence():
    kinds = torch.tensor([0, 1, 0, 0, 1, 0, 2])  # sequences may be interleaved
    source = Source(torch.arange(7.0)[:, None], kinds, (1,))
    expected = {0: {2}, 1: {4}, 2: {0, 3}, 3: {2, 5}, 4: {1}, 5: {3}, 6: {6}}
    for row, others in expected.items():
        index = torch.full((200,), row)
        assert set(drawn(Groups(), source, index)[:, 0].int().tolist()) == others
    index = torch.full((400,), 2)
    assert set(drawn(Groups(2), source, index)[:, 0].int().tolist()) == {0, 3, 5}
    every = torch.arange(7)
    related = Groups().related(every, every, Groups().prepare(source))
    pairs = {(i, j) for i, j in related.nonzero().tolist() if i != j}
    assert pairs == {(0, 2), (2, 0), (2, 3), (3, 2), (3, 5), (5, 3), (1, 4), (4, 1)}
    few = torch.tensor([5, 2])
    assert bool((Groups().related(every, few, Groups().prepare(source)) == related[:, few]).all())


IMAGES = torch.rand(40, 2 * 9 * 11, generator=torch.Generator().manual_seed(3)).double()
SHAPE = (2, 9, 11)


def views_of(images=IMAGES, shape=SHAPE, **settings):
    view = ImageAugmentation(**{**STILL, **settings})
    return drawn(view, Source(images, None, shape))


def test_images_stay_as_they_are_if_every_part_is_off():
    torch.testing.assert_close(views_of(), IMAGES, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "value"), [(name, 10.0 if name == "rotate" else 0.5) for name in STILL]
)
def test_every_part_changes_images_by_itself_and_keeps_them_finite(name, value):
    views = views_of(**{name: value})
    changed = (views != IMAGES).any(dim=1)
    assert bool(torch.isfinite(views).all())
    # Half of the images are flipped; a blur of less than a tenth of a pixel changes no digit.
    assert int(changed.sum()) >= (8 if name == "flip" else 30)


def test_a_flip_is_a_mirror_image():
    views = views_of(flip=1.0).reshape(40, *SHAPE)
    torch.testing.assert_close(views, IMAGES.reshape(40, *SHAPE).flip(3))


def test_a_shift_moves_what_is_seen():
    """Of a ramp along one axis, a shifted view differs by a constant away from the border."""
    ramp = torch.arange(11.0).double().expand(1, 9, 11).reshape(1, -1).repeat(30, 1)
    moved = (views_of(ramp, (1, 9, 11), shift=0.2) - ramp).reshape(30, 9, 11)[:, :, 3:8]
    steps = moved[:, 0, 0]
    torch.testing.assert_close(moved, steps[:, None, None].expand(moved.shape))
    assert float(steps.abs().max()) <= 0.2 * 11
    assert float(steps.std()) == pytest.approx(0.2 * 11 / math.sqrt(3), rel=0.3)


def test_a_crop_shows_part_of_the_image_at_full_size():
    """Of a ramp with slope 1, a crop is a ramp with the share that it shows as slope."""
    ramp = torch.arange(41.0).double().expand(1, 5, 41).reshape(1, -1).repeat(200, 1)
    seen = views_of(ramp, (1, 5, 41), crop=0.4).reshape(200, 5, 41)[:, 2, 2:-2]
    steps = seen.diff(dim=1)
    slope = steps[:, :1]
    torch.testing.assert_close(steps, slope.expand(steps.shape))
    assert 0.6 <= float(slope.min()) < 0.65
    assert 0.95 < float(slope.max()) <= 1.0
    # Pixels are centres of cells: half a cell beyond the outermost ones is the edge of the view.
    first, last = seen[:, 0] - 2.5 * slope[:, 0], seen[:, -1] + 2.5 * slope[:, 0]
    assert float(first.min()) >= -0.5 - 1e-9
    assert float(last.max()) <= 40.5 + 1e-9
    assert float((first + 0.5).max()) > 0.3 * 41  # crops lie anywhere


def test_a_rotation_keeps_what_is_symmetric():
    """A bowl in pixels is the same from every angle, also where height and width differ."""
    y, x = torch.meshgrid(torch.arange(17.0) - 8, torch.arange(31.0) - 15, indexing="ij")
    bowl = (x.square() + y.square()).double().reshape(1, -1).repeat(10, 1)
    turned = views_of(bowl, (1, 17, 31), rotate=90.0).reshape(10, 17, 31)
    inner = (x.square() + y.square() < 49).expand(10, 17, 31)
    # Linear interpolation of a parabola is wrong by at most 1/4 along each axis.
    error = (turned - bowl.reshape(10, 17, 31))[inner]
    assert float(error.abs().max()) <= 0.5 + 1e-9


def test_blurs_keep_the_mean_and_add_their_variance():
    image = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    image[0, 0, 15, 15] = 1.0
    soft = blurred(image.repeat(2, 1, 1, 1), torch.tensor([1.5, 0.0], dtype=torch.float64))
    torch.testing.assert_close(soft[1], image[0])
    assert float(soft[0].sum()) == pytest.approx(1.0)
    places = torch.arange(31.0).double() - 15
    variance = float((soft[0, 0].sum(dim=0) * places.square()).sum())
    # The kernel ends at two standard deviations: 23 % of the variance of a Gaussian lie beyond.
    assert 0.7 * 1.5**2 < variance < 1.5**2


def test_contrast_and_brightness_are_affine_and_colour_acts_by_channel():
    lit = views_of(contrast=0.5, brightness=0.5)
    for before, after in zip(IMAGES, lit, strict=True):
        gain, offset = np.polyfit(before.numpy(), after.numpy(), 1)
        np.testing.assert_allclose(after, gain * before + offset, atol=1e-9)
        assert 0.5 <= gain <= 1.5
    coloured = views_of(colour=0.5).reshape(40, 2, -1)
    gains = coloured.std(dim=2) / IMAGES.reshape(40, 2, -1).std(dim=2)
    assert float((gains[:, 0] - gains[:, 1]).abs().mean()) > 0.1


def test_an_erased_rectangle_takes_the_mean():
    views = views_of(erase=1.0).reshape(40, 2, 9, 11)
    images = IMAGES.reshape(40, 2, 9, 11)
    gone = (views != images).any(dim=1)
    for image, view, mask in zip(images, views, gone, strict=True):
        mean = image.mean(dim=(1, 2))
        assert torch.allclose(view[:, mask], mean[:, None].expand(2, int(mask.sum())))
        rows, columns = mask.any(dim=1), mask.any(dim=0)
        assert bool((mask == (rows[:, None] & columns)).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureCorruption(1.0), "nothing of the row"),
        (lambda: FeatureCorruption(-0.1), "fraction"),
        (lambda: Neighbours(0), "n_neighbors"),
        (lambda: Groups(0), "max_distance"),
        (lambda: ImageAugmentation(crop=1.0), "nothing would be left"),
        (lambda: ImageAugmentation(shift=2.0), "shift"),
        (lambda: ImageAugmentation(rotate=-1.0), "rotate"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
