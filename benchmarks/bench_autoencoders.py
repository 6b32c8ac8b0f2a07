"""Auto-encoders: speed against bare loops and peers, and what they reach on MNIST.

Each question is one section, named on the command line:

- `speed`: a VAE 784-400-20-400-784 on the 60,000 images (batch 128, Adam at 0.001) against a bare
  torch loop with the fused optimiser, pythae and PyOD; then the held-out bound after 5 epochs.
- `features`: plain, denoising and contractive codes of one layer, under logistic regression and
  under a fine-tuned softmax head.
- `masked`: a linear probe on the codes of a masked auto-encoder and of its untrained encoder.
- `ood`: FashionMNIST against MNIST, both ways, and a digit held out: raw log p(x), reconstruction,
  input complexity and typicality.
- `likelihood`: test nats of a 200-200-50 VAE with 5000 importance samples; an hour on two cores, so
  it runs only if it is named.

Needs the folder of data sets named by SKLEBM_DATA.

    python benchmarks/bench_autoencoders.py speed features masked ood [--quick]
    python benchmarks/bench_autoencoders.py likelihood --epochs 400
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import save_results, set_threads, timed_ratio
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from sklebm import (
    VAE,
    Autoencoder,
    ContractiveAutoencoder,
    DenoisingAutoencoder,
    InputComplexityScorer,
    MaskedAutoencoder,
    TypicalityScorer,
)

Rows = list[list[object]]
#: What a trained contestant says of held-out rows: its mean evidence lower bound, in nats.
Bound = Callable[[torch.Tensor], float]


def load(name: str) -> tuple[Any, ...]:
    """Training and test images of a set as rows in [0, 1], and their labels."""
    folder = os.environ.get("SKLEBM_DATA")
    if not folder:
        sys.exit("SKLEBM_DATA is not set: this benchmark needs the folder of data sets.")
    with np.load(Path(folder) / name, allow_pickle=False) as data:
        parts = [data[f"x_{part}"].reshape(-1, 784) for part in ("train", "test")]
        labels = [data[f"y_{part}"] for part in ("train", "test")]
    return *(part.astype(np.float32) / 255 for part in parts), *labels


# ---------------------------------------------------------------------- speed


class BareVAE(nn.Module):
    """What one would write by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 40))
        self.decoder = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Minus the evidence lower bound of a batch."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        error = functional.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum")
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
        return (error + divergence) / len(x)


def negative_bound(x: Any, probabilities: Any, mean: Any, log_variance: Any, **_: Any) -> Any:
    """Minus the evidence lower bound of a batch, in nats a row, from one draw of the code."""
    error = functional.binary_cross_entropy(probabilities, x, reduction="sum")
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum()
    return (error + divergence) / len(x)


def judge(encode: Callable[..., Any], decode: Callable[..., Any]) -> Bound:
    """The bound of a model on held-out rows, from ten draws a row."""

    def bound(x: torch.Tensor) -> float:
        torch.manual_seed(1)
        total = 0.0
        with torch.no_grad():
            mean, log_variance = encode(x)
            for _ in range(10):
                z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
                total -= float(negative_bound(x, decode(z), mean, log_variance))
        return total / 10

    return bound


def bare_loop(x: torch.Tensor, n_epochs: int) -> Bound:
    """The loop by hand, with the optimiser in one kernel."""
    torch.manual_seed(0)
    model = BareVAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(n_epochs):
        total = torch.zeros(())
        for index in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            loss = model(x[index])
            loss.backward()
            optimizer.step()
            total += loss.detach()
        total.item()
    return judge(lambda x: model.encoder(x).chunk(2, dim=1), lambda z: model.decoder(z).sigmoid())


def sklebm_vae(x: Any, n_epochs: int) -> Bound:
    """The estimator."""
    model = VAE(
        20,
        hidden_sizes=(400,),
        likelihood="bernoulli",
        learning_rate_schedule="constant",
        batch_size=128,
        max_epochs=n_epochs,
        random_state=0,
        device="cpu",
    ).fit(x)
    model.set_params(n_importance_samples=16)
    return lambda x: float(model.lower_bound(x.numpy()).mean())


def pythae_vae(x: torch.Tensor, n_epochs: int) -> Bound:
    """Pythae's training pipeline, as its documentation has it."""
    from pythae.models import VAE as PythaeVAE
    from pythae.models import VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.mean, self.log_variance = nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x: torch.Tensor) -> Any:
            h = self.hidden(x.reshape(-1, 784))
            return ModelOutput(embedding=self.mean(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid()
            )

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

    logging.disable(logging.CRITICAL)
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    trainer = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=n_epochs,
        per_device_train_batch_size=128,
        learning_rate=1e-3,
        optimizer_cls="Adam",
        no_cuda=True,
    )
    model = PythaeVAE(config, Encoder(), Decoder())
    TrainingPipeline(model=model, training_config=trainer)(
        train_data=x.reshape(-1, 1, 28, 28).numpy()
    )
    model.eval()

    def encode(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        code = model.encoder(rows)
        return code.embedding, code.log_covariance

    return judge(encode, lambda z: model.decoder(z).reconstruction.reshape(len(z), -1))


def pyod_vae(x: torch.Tensor, n_epochs: int) -> Bound:
    """PyOD's detector with the same bound, without dropout, scaling and decay of weights.

    Its own loss is the squared error alone: the divergence is clamped at a capacity of 0.
    """
    from pyod.models.vae import VAE as PyodVAE

    detector = PyodVAE(
        epoch_num=n_epochs,
        batch_size=128,
        lr=1e-3,
        latent_dim=20,
        encoder_neuron_list=[400],
        decoder_neuron_list=[400],
        batch_norm=False,
        dropout_rate=0.0,
        preprocessing=False,
        optimizer_params={},
        device="cpu",
        verbose=0,
    )
    detector.criterion = negative_bound
    detector.fit(x.numpy())
    detector.model.eval()
    return judge(detector.model.encode, detector.model.decode)


def speed(options: argparse.Namespace) -> None:
    """Seconds of an epoch, and the bound after five."""
    train, test, _, _ = load("mnist.npz")
    train = train[: 2000 if options.quick else 60_000]
    x, x_test = torch.from_numpy(train), torch.from_numpy(test)
    peers: dict[str, Callable[[torch.Tensor, int], Bound]] = {
        "bare loop, fused Adam": bare_loop,
        "sklebm": sklebm_vae,
    }
    for name, package, contestant in (
        ("pythae", "pythae", pythae_vae),
        ("PyOD", "pyod", pyod_vae),
    ):
        try:
            peers[f"{name} {importlib.metadata.version(package)}"] = contestant
        except importlib.metadata.PackageNotFoundError:
            sys.exit(f"The peer {name} is missing: pip install {package}.")
    timings = timed_ratio(
        {name: lambda f=f: f(x, 1) for name, f in peers.items()},
        reference="bare loop, fused Adam",
        repeats=2 if options.quick else 5,
    )
    n_epochs = 1 if options.quick else 5
    bounds = {name: contestant(x, n_epochs)(x_test) for name, contestant in peers.items()}
    rows: Rows = [
        [
            name,
            round(timing.median, 2),
            round(timing.spread, 2),
            round(timing.ratio, 2),
            round(bounds[name], 2),
        ]
        for name, timing in timings.items()
    ]
    report(
        options,
        "autoencoders_speed",
        "Training a VAE: seconds of one epoch of MNIST",
        ["contestant", "median (s)", "spread", "ratio to bare", "test bound after 5 epochs (nats)"],
        rows,
        "speed",
        f"784-400-20-400-784, 60,000 grey images, batch 128, Adam at 0.001, {options.threads} "
        "threads, float32. Every contestant trains one epoch from its public entry point, with all "
        "that belongs to it; PyOD's is given the same loss, since its own leaves out the "
        "divergence, and also scores its training rows at the end of fit. Bounds: means over the "
        "10,000 test images, from at least ten draws of each code.",
    )


# ---------------------------------------------------------------------- features


def fine_tune(model: Any, x: Any, y: Any, seed: int, n_epochs: int) -> nn.Module:
    """A softmax head on the encoder, both trained on labels."""
    weights = model.weights_
    layer = nn.Linear(*weights["encoder.0.weight"].shape[::-1])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights["encoder.0.weight"]))
        layer.bias.copy_(torch.from_numpy(weights["encoder.0.bias"]))
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(layer.out_features, 10)
    with torch.no_grad():
        head.weight.zero_(), head.bias.zero_()
    net = nn.Sequential(layer, nn.Sigmoid(), head)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs)
    x, y = torch.from_numpy(x), torch.from_numpy(y.astype(np.int64))
    for _ in range(n_epochs):
        for index in torch.randperm(len(x), generator=generator).split(128):
            optimizer.zero_grad()
            functional.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
        schedule.step()
    return net


def error_of(net: nn.Module, x: Any, y: Any) -> float:
    """Percentage of wrong answers."""
    with torch.no_grad():
        return 100 * float((net(torch.from_numpy(x)).argmax(1).numpy() != y).mean())


def features(options: argparse.Namespace) -> None:
    """Test errors of codes under two classifiers."""
    train, test, y_train, y_test = load("mnist.npz")
    n_rows, n_units, n_epochs, seeds = (
        (1000, 100, 2, (0,))
        if options.quick
        else (options.rows, options.units, options.epochs or 5, range(3))
    )
    train, y_train = train[:n_rows], y_train[:n_rows]
    shared = {
        "hidden_sizes": (),
        "code_activation": "sigmoid",
        "output_activation": "sigmoid",
        "tied": True,
        "learning_rate": 0.002,
        "max_epochs": n_epochs,
        "device": "cpu",
    }
    kinds: dict[str, Callable[[int], Any]] = {
        "plain": lambda seed: Autoencoder(n_units, random_state=seed, **shared),
        "denoising": lambda seed: DenoisingAutoencoder(
            n_units, corruption="masking", corruption_level=0.3, random_state=seed, **shared
        ),
        "contractive": lambda seed: ContractiveAutoencoder(
            n_units, alpha=0.1, random_state=seed, **shared
        ),
    }
    rows: Rows = []
    for name, make in kinds.items():
        linear, tuned = [], []
        for seed in seeds:
            model = make(seed).fit(train)
            probe = LogisticRegression(C=1.0, max_iter=100, tol=1e-3)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                probe.fit(model.transform(train), y_train)
            linear.append(100 * (1 - probe.score(model.transform(test), y_test)))
            tuned.append(error_of(fine_tune(model, train, y_train, seed, n_epochs), test, y_test))
        rows.append([name, *(f"{np.mean(e):.2f} ± {np.std(e):.2f}" for e in (linear, tuned))])
        print(rows[-1], flush=True)
    report(
        options,
        "autoencoders_features",
        "Codes for a classifier: test error on MNIST",
        ["model", "logistic regression (%)", "fine-tuned head (%)"],
        rows,
        "features",
        f"First {n_rows} training images, one tied layer of {n_units} sigmoid units, {n_epochs} "
        "epochs of Adam at 0.002, mean and deviation over 3 seeds. Denoising masks 30 % of the "
        "pixels; contractive alpha 0.1. --rows 60000 --units 1000 is the published size.",
    )


# ---------------------------------------------------------------------- masked


def masked(options: argparse.Namespace) -> None:
    """Linear probes on trained and untrained encoders."""
    train, test, y_train, y_test = load("mnist.npz")
    n_rows, n_epochs = (1000, 1) if options.quick else (options.rows, options.epochs or 15)
    train, y_train = train[:n_rows], y_train[:n_rows]
    rows: Rows = []
    for name, rate, epochs in (("untrained", 1e-12, 1), ("trained", 0.003, n_epochs)):
        model = MaskedAutoencoder(
            options.units,
            hidden_sizes=(),
            code_activation="sigmoid",
            masked_fraction=0.75,
            learning_rate=rate,
            batch_size=64,
            max_epochs=epochs,
            random_state=0,
            device="cpu",
        ).fit(train)
        codes, codes_test = model.transform(train), model.transform(test)
        scale = codes.std(axis=0) + 1e-3
        probe = LogisticRegression(C=0.1, max_iter=100, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            probe.fit(codes / scale, y_train)
        accuracy = 100 * probe.score(codes_test / scale, y_test)
        rows.append([name, round(accuracy, 2), round(-model.score(test[:2000]), 2)])
        print(rows[-1], flush=True)
    report(
        options,
        "autoencoders_masked",
        "Linear probe on codes of a masked auto-encoder, MNIST",
        ["encoder", "test accuracy (%)", "squared error of hidden pixels"],
        rows,
        "masked",
        f"{n_rows} images, one layer of {options.units} sigmoid units, 75 % of the pixels hidden, "
        f"{n_epochs} epochs.",
    )


# ---------------------------------------------------------------------- out of distribution


def ood(options: argparse.Namespace) -> None:
    """AUROC of several scores of one VAE."""
    digits, digits_test, labels, labels_test = load("mnist.npz")
    fashion, fashion_test, _, _ = load("fashion_mnist_test.npz")
    n_rows, n_test, n_epochs = (500, 200, 1) if options.quick else (5_000, 1000, 15)
    seven = labels[:n_rows] == 7
    cases = {
        "FashionMNIST, against MNIST": (fashion[:n_rows], fashion_test, digits_test),
        "MNIST, against FashionMNIST": (digits[:n_rows], digits_test, fashion_test),
        "MNIST without 7, against 7": (
            digits[:n_rows][~seven],
            digits_test[labels_test != 7],
            digits_test[labels_test == 7],
        ),
    }
    rows: Rows = []
    for name, (train, inside, outside) in cases.items():
        vae = VAE(
            20,
            hidden_sizes=(400,),
            likelihood="bernoulli",
            max_epochs=n_epochs,
            n_importance_samples=64,
            random_state=0,
            device="cpu",
        )
        typicality = TypicalityScorer(vae).fit(train)
        complexity = InputComplexityScorer(vae, image_shape=(28, 28)).fit(train)
        vae = vae.fit(train)
        tests = np.vstack([inside[:n_test], outside[:n_test]])
        truth = np.repeat([1, 0], [len(inside[:n_test]), len(outside[:n_test])])
        scores = {
            "log p(x)": vae.score_samples(tests),
            "reconstruction": -np.square(tests - vae.reconstruct(tests)).sum(axis=1),
            "input complexity": complexity.score_samples(tests),
            "typicality": typicality.score_samples(tests),
        }
        rows.append([name, *(round(roc_auc_score(truth, s), 3) for s in scores.values())])
        print(rows[-1], flush=True)
    report(
        options,
        "autoencoders_ood",
        "Rows of another kind: AUROC of four scores of one VAE",
        ["trained on", "log p(x)", "reconstruction", "input complexity", "typicality"],
        rows,
        "ood",
        f"{n_rows} training images, 784-400-20 Bernoulli VAE on grey levels, {n_epochs} epochs; "
        "1000 test images of each kind. 0.5 is chance; below it, the others look more typical.",
    )


# ---------------------------------------------------------------------- likelihood


def likelihood(options: argparse.Namespace) -> None:
    """Test nats under dynamic binarisation."""
    train, test, _, _ = load("mnist.npz")
    n_epochs = options.epochs or 400
    if options.quick:
        train, test, n_epochs = train[:1000], test[:20], 2
    drawn = (np.random.default_rng(0).random(test.shape) < test).astype(np.float32)
    start = time.perf_counter()
    vae = VAE(
        50,
        hidden_sizes=(200, 200),
        activation="tanh",
        likelihood="bernoulli",
        binarize=True,
        objective=options.objective,
        n_samples=options.samples,
        batch_size=100,
        max_epochs=n_epochs,
        n_importance_samples=5000 if not options.quick else 50,
        random_state=0,
    ).fit(train)
    minutes = (time.perf_counter() - start) / 60
    report(
        options,
        "autoencoders_likelihood",
        "One stochastic layer on dynamically binarised MNIST",
        ["objective", "epochs", "minutes", "test NLL (nats, 5000 samples)"],
        [[options.objective, n_epochs, round(minutes, 1), round(-vae.score(drawn), 2)]],
        "likelihood",
        "784-200-200-50, batch 100, Adam at 0.001 with cosine decay.",
    )


def report(
    options: argparse.Namespace,
    name: str,
    title: str,
    columns: list[str],
    rows: Rows,
    section: str,
    notes: str,
) -> None:
    """Print a table, and save it unless it is a rehearsal."""
    for row in [columns, *rows]:
        print("  ".join(f"{cell!s:>24}" for cell in row))
    if not options.quick:
        save_results(name, title, columns, rows, notes=notes)


SECTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "speed": speed,
    "features": features,
    "masked": masked,
    "ood": ood,
    "likelihood": likelihood,
}


def main() -> None:
    """Run the sections that are named; all but the hour-long one if none is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []])
    parser.add_argument("--quick", action="store_true", help="small sizes, nothing saved")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--units", type=int, default=500)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--objective", default="elbo")
    parser.add_argument("--samples", type=int)
    options = parser.parse_args()
    set_threads(options.threads)
    for name in options.sections or [name for name in SECTIONS if name != "likelihood"]:
        SECTIONS[name](options)


if __name__ == "__main__":
    main()
