"""Two processes, one model: weights stay equal because the objective runs inside forward."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from sklebm.objectives import (
    ContrastiveDivergence,
    MaximumLikelihood,
    PersistentContrastiveDivergence,
)
from sklebm.training.loop import EnergyTraining, RowDataset, TensorBatches, run_batches
from tests.machines import exact_rows, make_machine

N_RANKS = 2


def train(rank, objective, rows, wrap):
    """Weights after three epochs over the rows of one rank."""
    machine = make_machine(5, 4, scale=0.1, dtype=torch.float32)
    generator = torch.Generator().manual_seed(rank)
    state = objective.init_state(machine, 10, generator)
    training = wrap(EnergyTraining(machine, objective, state, generator))
    optimizer = torch.optim.SGD(training.parameters(), lr=0.2)
    order = torch.Generator().manual_seed(0)
    for _ in range(3):
        run_batches(training, optimizer, TensorBatches(RowDataset(rows), 10, order), 10)
    return torch.cat([p.detach().flatten() for p in machine.parameters()])


def worker(rank, folder, objectives, rows):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=N_RANKS
    )
    from torch.nn.parallel import DistributedDataParallel

    for number, objective in enumerate(objectives):
        weights = train(rank, objective, rows[rank::N_RANKS], DistributedDataParallel)
        np.save(f"{folder}/{number}-{rank}.npy", weights.numpy())
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch was built without distributed")
def test_ranks_hold_the_same_weights(tmp_path):
    rows = torch.tensor(exact_rows(make_machine(5, 4, seed=1), 40)).float()
    objectives = [
        ContrastiveDivergence(),
        PersistentContrastiveDivergence(),
        MaximumLikelihood(),
    ]
    mp.spawn(worker, (str(tmp_path), objectives, rows), nprocs=N_RANKS)
    for number, objective in enumerate(objectives):
        ranks = [np.load(tmp_path / f"{number}-{rank}.npy") for rank in range(N_RANKS)]
        assert np.abs(ranks[0] - ranks[1]).max() == 0.0, objective
        # Each rank alone would have gone elsewhere.
        alone = [train(rank, objective, rows[rank::N_RANKS], lambda t: t) for rank in (0, 1)]
        assert (alone[0] - alone[1]).abs().max() > 1e-3, objective
