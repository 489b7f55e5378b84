"""Alarms: in which pictures there is one, how well they tell polyps from none, and the FROC."""

import numpy as np

from utils.prediction.predictors import sigmoid

LEVELS = sigmoid(np.linspace(-5, 16, 85))  # of sureness, at which the FROC is computed
RATES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)  # false alarms a picture, at which LUNA16 reads it


def count_alarms(compared, level):
    """Return the regions that are alarms in each of n pictures, (n,) int.

    compared: for each picture what `compare_regions` returns; level: from which sureness on.
    """
    return np.array([(regions.sureness >= level).sum() for _, regions in compared])


def picture_table(counts, compared, surest, dice, level):
    """Return what is summed of whole pictures, a dict of (n, ...) arrays by their names.

    counts: (n, 4) as from `confusion_counts`; compared, level: see `count_alarms`; surest: (n,)
    float, `picture_sureness`; dice: (n,) float.
    """
    alarms, shown = count_alarms(compared, level), counts[:, 0] + counts[:, 2] > 0
    return {
        "shown": shown,
        "absent": ~shown,
        "alarmed": shown & (alarms > 0),
        "disturbed": ~shown & (alarms > 0),
        "marked": ~shown & (count_alarms(compared, 0) > 0),
        "needless": np.where(shown, 0, alarms),
        "shown_dice": np.where(shown, dice, 0),
        "surest": np.asarray(surest),
        "polyps": np.array([len(polyps.ious) for polyps, _ in compared]),
        "found_at": np.array([at_levels(polyps.sureness) for polyps, _ in compared]),
        "false_at": np.array(
            [at_levels(regions.sureness[regions.ious == 0]) for _, regions in compared]
        ),
    }


def at_levels(sureness):
    """Return how many of some regions reach each of LEVELS, (levels,) int; sureness: (k,) float."""
    return (np.reshape(sureness, (-1, 1)) >= LEVELS).sum(axis=0)


def area_under_roc(shown, surest, weights):
    """Return how likely a picture with a polyp is surer than one without, equals counted half.

    That is the area under the ROC curve (Hanley and McNeil 1982, doi
    10.1148/radiology.143.1.7063747). shown: (n,) bool; surest: (n,) float; weights: (..., n), how
    often each picture counts. Returns (...) float, NaN without pictures of both kinds.
    """
    order = np.argsort(surest, kind="stable")
    begins = np.flatnonzero(np.diff(np.asarray(surest)[order], prepend=-np.inf))
    weights = np.asarray(weights, float)[..., order]
    with_polyp = np.add.reduceat(weights * shown[order], begins, axis=-1)
    without = np.add.reduceat(weights * ~shown[order], begins, axis=-1)
    below = np.cumsum(without, axis=-1) - without / 2
    pairs = with_polyp.sum(axis=-1) * without.sum(axis=-1)
    won = (with_polyp * below).sum(axis=-1)
    return np.divide(won, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


def froc(found_at, false_at, polyps, images):
    """Return the free-response ROC: false alarms a picture, and the share of the polyps found.

    Both (..., levels) float, from the highest of LEVELS down. The arguments are sums over pictures,
    (..., levels) and (...), as in `picture_table`. An alarm is false if it overlaps no polyp, and a
    polyp is found if an alarm overlaps it (Bunch et al. 1977, doi 10.1117/12.955926).
    """
    polyps, images = (np.asarray(sums, float)[..., None] for sums in (polyps, images))
    share = np.divide(found_at, polyps, out=np.full(found_at.shape, np.nan), where=polyps > 0)
    return (false_at / images)[..., ::-1], share[..., ::-1]


def froc_score(found_at, false_at, polyps, images):
    """Return the mean share of the polyps found at the RATES, (...) float, NaN without a polyp.

    Between two levels it is interpolated, and beyond the last it stays, as LUNA16 does (Setio et
    al. 2017, doi 10.1016/j.media.2017.06.015).
    """
    rates, shares = froc(found_at, false_at, polyps, images)
    flat = zip(rates.reshape(-1, len(LEVELS)), shares.reshape(-1, len(LEVELS)), strict=True)
    means = [np.interp(RATES, rate, share).mean() for rate, share in flat]
    return np.reshape(means, np.shape(polyps))
