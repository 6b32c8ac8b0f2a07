"""Processes that fit together, kept for as many calls as the tests make."""

import multiprocessing as mp
import os
import time

import pytest
import torch
import torch.distributed as dist

N_RANKS = 2
SECONDS = 60

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)


# Imported once, by the server that every process is a copy of.
_PRELOADED = (
    "tests.registry",
    *(f"sklebm.{family}" for family in ("autoencoders", "boltzmann", "coding", "deep", "linear")),
    "sklebm.mixture",
    "sklebm.training.net",
    "numba",
    "torch._dynamo",  # by the first step of an optimiser
)


def _serve(rank, n_ranks, port, connection):
    torch.set_num_threads(1)
    # What torchrun sets; the table where processes meet is that of their parent there, too.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n_ranks),
        "LOCAL_WORLD_SIZE": str(n_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    while True:
        function, arguments = connection.recv()
        try:
            connection.send((function(rank, *arguments), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))


class World:
    """The processes; ``run`` calls a function of a test module on each."""

    def __init__(self, n_ranks=N_RANKS):
        can_copy = "forkserver" in mp.get_all_start_methods()
        context = mp.get_context("forkserver" if can_copy else "spawn")
        context.set_forkserver_preload(list(_PRELOADED))
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes, self.connections = [], []
        for rank in range(n_ranks):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, n_ranks, self.store.port, theirs), daemon=True
            )
            process.start()
            theirs.close()  # so that the end of the process is seen
            self.processes.append(process)
            self.connections.append(ours)

    def outcomes(self, function, *arguments):
        """What ``function(rank, *arguments)`` returned and the error it raised, for each rank."""
        for connection in self.connections:
            connection.send((function, arguments))
        end = time.monotonic() + SECONDS
        found = []
        for rank, connection in enumerate(self.connections):
            if not connection.poll(end - time.monotonic()):
                self.close()
                pytest.fail(f"rank {rank} hangs")
            try:
                found.append(connection.recv())
            except EOFError:
                found.append((None, "killed"))
        return found

    def run(self, function, *arguments):
        """What ``function(rank, *arguments)`` returned on each rank."""
        outcomes = self.outcomes(function, *arguments)
        errors = [error for _, error in outcomes]
        assert not any(errors), errors
        return [value for value, _ in outcomes]

    def close(self):
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()
