"""The registry of metrics: each of them once, with all that is told of it."""

from shell import ROOT
from utils.scoring.registry import DEFINITIONS, FAMILIES, FIRST, KINDS, METRICS, document


def test_every_metric_stands_there_once_with_a_kind_of_interval():
    assert len(DEFINITIONS) == len({metric.label for metric in METRICS}) == len(METRICS)
    assert all(family.metrics for family in FAMILIES.values())
    assert {metric.interval for metric in METRICS} == {*KINDS, None}
    assert set(FIRST) < set(DEFINITIONS)


def test_the_page_of_the_scores_is_what_the_registry_makes():
    page = (ROOT / "docs/scores.md").read_text(encoding="utf-8")
    assert page == document(), "run python -m utils.scoring.registry > docs/scores.md"
    assert "| specificity | `specificity` | TN / (TN + FP); pixels pooled | scenes |" in page
