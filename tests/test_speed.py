"""Gross slips of speed, by ratio alone; benchmark.py is what measures."""

import pytest

import benchmark


@pytest.fixture(autouse=True)
def small_job(demo, monkeypatch):
    monkeypatch.setattr(benchmark, "DATA", demo)
    monkeypatch.setitem(benchmark.STEPS, 8, 2)


def best_rates(*contenders):
    """Return the best rate of each in three turns, after a warm-up."""
    for work in contenders:
        work()
    turns = [[benchmark.rate_of(work) for work in contenders] for _ in range(3)]
    return map(max, zip(*turns, strict=True))


def test_augmentation_is_faster_than_the_stock_generators():
    ours, stock = best_rates(benchmark.augmentation(), benchmark.stock_augmentation())
    assert ours > stock


def test_training_does_not_wait_for_its_input():
    contenders = (benchmark.end_to_end(8, "float32"), benchmark.bare_step(8, "float32"))
    whole, bare = best_rates(*contenders)
    assert whole > 0.6 * bare  # by tests beside it a core may be taken; one that sleeps has 0.5
