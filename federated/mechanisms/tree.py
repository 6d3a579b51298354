"""DP-FTRL's tree aggregation, TensorFlow Privacy's own query, with restarts."""

from collections.abc import Sequence

import tensorflow as tf
import tensorflow_privacy as tfp

from federated.mechanisms.gaussian import clip_record
from federated.strategies import Tree


def build_tree_query(
    record_specs: Sequence[tf.TensorSpec],
    clip_norm: float,
    noise_multiplier: float,
    seed: int,
    strategy: Tree,
) -> tfp.SumAggregationDPQuery:
    """Binary tree aggregation with Honaker's variance reduction (Kairouz et al. 2021, algorithm 1).

    The results are residuals, so that the sum of all rounds up to now carries O(log rounds) noise terms of standard
    deviation noise_multiplier * clip_norm. A restart leaves in the sum what noise there is, and starts a new tree.

    Args:
        record_specs, clip_norm, noise_multiplier: as of `GaussianSumQuery`.
        seed: as there. The query counts it up, one a tensor and node: seeds of different runs must start far apart.
        strategy: says when to restart.
    """
    specs = list(record_specs)
    query = tfp.TreeResidualSumQuery(
        specs,
        tfp.tree_aggregation.GaussianNoiseGenerator(clip_norm * noise_multiplier, specs, seed),
        clip_fn=lambda record, bound: clip_record(record, bound)[0],
        clip_value=clip_norm,
        use_efficient=True,
    )
    if strategy.restart_every is None:
        return query
    return tfp.RestartQuery(
        query, tfp.restart_query.PeriodicRoundRestartIndicator(strategy.restart_every)
    )
