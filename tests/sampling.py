"""A seeded sample of the large tables; all of them with ``SKLEBM_TEST_FULL=1``."""

import os
import random

FULL = os.environ.get("SKLEBM_TEST_FULL", "") not in ("", "0")
SEED = int(os.environ.get("SKLEBM_TEST_SEED", "0"))


def sample_cases(cases, limit, key=lambda case: case[0]):
    """Return at most about ``limit`` cases, in order, with every ``key`` represented.

    The sample is the same in every run and in every process. ``SKLEBM_TEST_SEED`` draws another.
    """
    cases = list(cases)
    if FULL or len(cases) <= limit:
        return cases
    generator = random.Random(SEED)
    shuffled = generator.sample(range(len(cases)), len(cases))
    chosen, keys = set(), set()
    for index in shuffled:
        if key(cases[index]) not in keys:
            keys.add(key(cases[index]))
            chosen.add(index)
    for index in shuffled:
        if len(chosen) >= limit:
            break
        chosen.add(index)
    return [case for index, case in enumerate(cases) if index in chosen]
