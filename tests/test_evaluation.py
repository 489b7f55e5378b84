"""What evaluation.py says of its scores, and prediction."""

import numpy as np

import evaluation
from model import build_unet
from utils.metrics import confusion_counts


def test_every_metric_says_what_it_is():
    random = np.random.default_rng(0)
    counts = confusion_counts(*random.integers(0, 2, (2, 5, 16, 16, 1)))
    metrics = evaluation.collect_metrics(counts, np.arange(len(counts)))
    assert list(metrics) == [
        *("mean_iou", "accuracy", "precision", "recall", "f1", "polyp_iou"),
        *("image_dice", "image_iou"),
    ]
    assert all("threshold 0.5" in metric["definition"] for metric in metrics.values())
    assert metrics["image_dice"]["interval"][0] <= metrics["image_dice"]["value"]
    table = evaluation.format_table(metrics).splitlines()
    assert len(table) == len(metrics)
    assert f"{metrics['recall']['value']:.3f}" in table[3]


def test_the_predictor_is_traced_once_for_batches_of_any_length():
    network = build_unet(size=32, filters=2)
    traces = []
    call = network.call
    network.call = lambda *args, **kwargs: traces.append(1) or call(*args, **kwargs)
    predict = evaluation.make_predictor(network)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    whole = predict(pictures)
    assert whole.shape == (5, 32, 32, 1)
    np.testing.assert_allclose(predict(pictures[:2]), whole[:2], atol=1e-6)
    np.testing.assert_allclose(predict(pictures[4:]), whole[4:], atol=1e-6)
    assert len(traces) == 1


def test_a_picture_is_segmented_at_its_own_size():
    def left_half(pictures):
        assert pictures.shape == (1, 32, 32, 3)
        probabilities = np.zeros((1, 32, 32, 1), np.float32)
        probabilities[:, :, :16] = 1
        return probabilities

    mask = evaluation.segment_picture(left_half, np.zeros((90, 200, 3), np.uint8), 32)
    assert mask.shape == (90, 200)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[:, :98] == 255).all()
    assert (mask[:, 102:] == 0).all()
