"""The optimizer: the same steps as Keras's Muon, for less."""

import keras
import numpy as np
import pytest

from utils.training.muon import GramMuon


@pytest.mark.parametrize("shape", [(27, 16), (2304, 256), (16, 144), (256, 64)], ids=str)
def test_the_orthogonal_step_is_that_of_keras(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    steps = [
        keras.ops.convert_to_numpy(muon(1e-3).zeropower_via_newtonschulz5(keras.ops.array(x), 5))
        for muon in (GramMuon, keras.optimizers.Muon)
    ]
    np.testing.assert_allclose(*steps, atol=1e-4)
    values = np.linalg.svd(steps[0], compute_uv=False)
    assert 0.5 < values.min() <= values.max() < 1.3


def test_a_training_is_that_of_keras():
    random = np.random.default_rng(0)
    x, y = random.normal(size=(64, 32)), random.normal(size=(64, 4))
    weights = []
    for muon in (GramMuon, keras.optimizers.Muon):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Dense(16, "relu"), keras.layers.Dense(4)])
        model.compile(muon(0.01, adam_lr_ratio=0.2), "mse")
        model.fit(x, y, epochs=3, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
