"""Microseconds per step of the training engine, over a bare torch loop that does the same work.

Persistent contrastive divergence with the same steps and the same batches, as

- a bare in-place loop: the `BareLoop` of `bench_bernoulli_rbm.py`, which writes the gradients by
  hand and adds them to the parameters in place; the reference;
- an autograd loop: `zero_grad`, the objective, `backward`, `step`, and one read of the loss per
  epoch;
- `BernoulliRBM.fit`, with all that comes before and after the loop;
- plain skorch: the module of the autograd loop in a `NeuralNet` with torch's DataLoader.

On 784-500 the products decide; on 8-4 nearly all is overhead, so the table gives microseconds.

    python benchmarks/bench_engine.py [--quick]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import skorch
import torch
from _common import save_results, set_threads, timed_ratio
from bench_bernoulli_rbm import BATCH, BareLoop

from sklebm import BernoulliRBM
from sklebm.energies import Bernoulli, BilinearEnergy
from sklebm.objectives import Batch, PersistentContrastiveDivergence
from sklebm.training.loop import EnergyTraining

RATE = 0.01


class TensorTraining(EnergyTraining):
    """The training step of the engine, as a module that takes plain rows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Loss of the rows."""
        return super().forward(Batch(x))


def make_training(n_visible: int, n_hidden: int) -> TensorTraining:
    """A fresh machine with its objective."""
    generator = torch.Generator().manual_seed(0)
    weights = 0.01 * torch.randn(n_hidden, n_visible, generator=generator)
    energy = BilinearEnergy(
        Bernoulli(torch.zeros(n_visible)), Bernoulli(torch.zeros(n_hidden)), weights
    )
    objective = PersistentContrastiveDivergence()
    state = objective.init_state(energy, BATCH, generator)
    return TensorTraining(energy, objective, state, generator)


def bare_loop(x: torch.Tensor, n_hidden: int, n_epochs: int) -> None:
    """The least that the same steps need."""
    loop = BareLoop(x.numpy(), n_hidden)
    for _ in range(n_epochs):
        loop.epoch()


def autograd_loop(x: torch.Tensor, n_hidden: int, n_epochs: int) -> None:
    """The same with an objective whose gradients torch finds."""
    training = make_training(x.shape[1], n_hidden)
    optimizer = torch.optim.SGD(training.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(1)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            loss = training(x[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()


def engine(x: torch.Tensor, n_hidden: int, n_epochs: int) -> None:
    """The estimator."""
    BernoulliRBM(
        n_hidden,
        learning_rate=RATE,
        batch_size=BATCH,
        max_epochs=n_epochs,
        log_partition=None,
        random_state=0,
        device="cpu",
    ).fit(x)


class LossNet(skorch.NeuralNet):
    """Plain skorch with a module that returns its loss."""

    def get_loss(self, y_pred, y_true, X=None, training=False):  # noqa: D102
        return y_pred


def plain_skorch(x: torch.Tensor, n_hidden: int, n_epochs: int) -> None:
    """As skorch's documentation has it."""
    net = LossNet(
        make_training(x.shape[1], n_hidden),
        criterion=torch.nn.Identity,
        optimizer=torch.optim.SGD,
        lr=RATE,
        batch_size=BATCH,
        max_epochs=n_epochs,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    net.fit(x.numpy())


REFERENCE = "bare in-place loop"
CONTESTANTS: dict[str, Callable[..., None]] = {
    REFERENCE: bare_loop,
    "autograd loop": autograd_loop,
    "sklebm": engine,
    "plain skorch": plain_skorch,
}


def measure(shape: tuple[int, int], n_rows: int, n_epochs: int, repeats: int) -> list[list[object]]:
    """Rows of the table for one model."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy((rng.random((n_rows, shape[0])) < 0.3).astype(np.float32))
    n_steps = n_epochs * -(-n_rows // BATCH)
    timings = timed_ratio(
        {
            name: lambda function=function: function(x, shape[1], n_epochs)
            for name, function in CONTESTANTS.items()
        },
        reference=REFERENCE,
        repeats=repeats,
    )
    bare = timings[REFERENCE].median
    return [
        [
            f"{shape[0]}-{shape[1]}",
            name,
            round(1e6 * timing.median / n_steps, 1),
            round(timing.spread, 2),
            round(timing.ratio, 3),
            round(1e6 * (timing.median - bare) / n_steps, 1),
        ]
        for name, timing in timings.items()
    ]


def main() -> None:
    """Measure both models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    set_threads(options.threads)
    if options.quick:
        rows = measure((784, 500), 300, 1, 2) + measure((8, 4), 1000, 2, 2)
    else:
        rows = measure((784, 500), 10_000, 2, 9) + measure((8, 4), 10_000, 20, 15)
    columns = ["model", "contestant", "step (us)", "spread", "ratio to bare", "over bare (us)"]
    for row in [columns, *rows]:
        print("  ".join(f"{cell!s:>14}" for cell in row))
    if not options.quick:
        save_results(
            "engine",
            "What the training engine costs over a bare torch loop",
            columns,
            rows,
            notes=(
                f"PCD-1, batch {BATCH}, SGD, float32, {options.threads} threads; 10,000 rows, 2 "
                "epochs of 784-500 and 20 of 8-4. The bare loop adds its gradients in place; those "
                "of sklebm are centred, the others' are not. The times of sklebm and skorch "
                "include everything from the call of fit to its return (validation, set-up, fitted "
                "attributes), divided by the number of steps. "
                f"skorch {skorch.__version__}."
            ),
        )


if __name__ == "__main__":
    main()
