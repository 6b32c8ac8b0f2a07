"""Two processes that fit together, kept for as many calls as a module of tests makes."""

import multiprocessing as mp
import tempfile
import time

import pytest
import torch
import torch.distributed as dist

N_RANKS = 2
SECONDS = 60

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="torch was built without gloo"
)


def _serve(rank, folder, connection):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=N_RANKS
    )
    while True:
        function, arguments = connection.recv()
        try:
            connection.send((function(rank, *arguments), None))
        except Exception as error:
            connection.send((None, f"{type(error).__name__}: {error}"))


class World:
    """The processes; ``run`` calls a function of a test module on each."""

    def __init__(self):
        context, folder = mp.get_context("spawn"), tempfile.mkdtemp()
        self.processes, self.connections = [], []
        for rank in range(N_RANKS):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, folder, theirs), daemon=True)
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
        assert [error for _, error in outcomes] == [None] * N_RANKS
        return [value for value, _ in outcomes]

    def close(self):
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.join()
