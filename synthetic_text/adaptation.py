"""Chooses pool messages by how much they look like what devices type, and sees of devices only what privacy allows.

Two signals, each a log importance weight per message; where both are on, add them. One is the differentially private
histogram that devices released (DSIR: Xie et al. 2023, arXiv:2302.03169, with noise in the target). The other is how
much better the privately trained federated model likes a message than its pre-trained start does: post-processing of a
model that is released anyway, so it costs no further privacy.
"""

from collections.abc import Sequence

import numpy as np

from device_runtime.features import DpHistogram, Features, FeatureSpace

# Tuned on the LLM chats against validation users, at epsilon 1, 4 and 16 with 834 devices.
RELATIVE_SPREAD = 0.5
"""How far devices are expected to be from the pool: standard deviation of a bucket's share, in shares of the pool."""
LEAST_RATIO = 0.05
"""Lower bound of a bucket's share, in shares of the pool; a share in a noisy count can come out negative."""
LEAST_SIGNAL = 3.0
"""Counts of a segment sum to their noise alone with a standard deviation; below this many of them it says nothing."""
POOL_SMOOTHING = 0.5  # Jeffreys' prior; a bucket the pool never fills weighs nobody

_TOPIC_ITERATIONS = 20


def fit_topics(documents: Sequence[str], words: int, topics: int, seed: int) -> np.ndarray:
    """Public topics for a `FeatureSpace`, float32 [topics, words], by clustering public documents.

    Spherical k-means (Dhillon & Modha 2001) of log-count, inverse-document-frequency rows; a topic's row is its centre
    times the inverse document frequency, so that a message's cosine needs only its word buckets.

    Args:
        documents: whole chats rather than messages, which are too short to tell a topic; public text only.
        words: word buckets of the space.
        topics: number of clusters.
        seed: of the first centres.

    Raises:
        ValueError: there are fewer documents than topics.
    """
    from scipy.sparse import csr_matrix

    if not 1 <= topics <= len(documents):
        raise ValueError(
            f"topics: {topics} from {len(documents)} documents; give from 1 to as many"
        )
    features = FeatureSpace(words, 0, np.zeros((0, words), np.float32)).extract(documents)
    ones = np.ones(len(features.ids))
    counts = csr_matrix((ones, features.ids, features.offsets), (len(documents), words))
    counts.sum_duplicates()
    idf = np.log(len(documents) / np.maximum(1, np.bincount(counts.indices, minlength=words)))
    rows = counts.log1p().multiply(idf).tocsr()
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)))
    rows = rows.multiply(1 / np.maximum(norms, 1e-12)).tocsr()
    centres = rows[np.random.default_rng(seed).permutation(len(documents))[:topics]].toarray()
    for _ in range(_TOPIC_ITERATIONS):
        nearest = np.asarray(rows @ centres.T).argmax(axis=1)
        for topic in range(topics):
            centre = np.asarray(rows[nearest == topic].sum(axis=0))[0]
            if centre.any():
                centres[topic] = centre / np.linalg.norm(centre)
    return (centres * idf).astype(np.float32)


def estimate_log_ratios(
    histogram: DpHistogram, pool: np.ndarray, segments: Sequence[slice]
) -> np.ndarray:
    """log(target share / pool share) of each bucket, float64 [buckets], each segment made to average 0 over the pool.

    Words, pairs and topics are distributions of their own. A noisy count c of total T is shrunk towards the pool's
    share q: with a prior of mean Tq and standard deviation RELATIVE_SPREAD * Tq, and noise of standard deviation s,

        estimate = Tq + k (c - Tq),  k = (RELATIVE_SPREAD Tq)^2 / ((RELATIVE_SPREAD Tq)^2 + s^2)

    so a bucket under the noise floor counts as in the pool, ratio 1, and no threshold has to be chosen. The average is
    taken off because a log ratio is below 0 on average, which would prefer short messages of whatever content.

    Args:
        histogram: what devices released.
        pool: counts of the pool's messages in the same buckets.
        segments: which buckets make a distribution.

    Raises:
        ValueError: no segment rises above its noise.
    """
    ratios = np.zeros(len(pool))
    noise = histogram.noise_stddev
    silent = 0
    for segment in segments:
        counts, shares = histogram.counts[segment], pool[segment] + POOL_SMOOTHING
        total = counts.sum()
        if total <= LEAST_SIGNAL * noise * len(counts) ** 0.5:
            silent += 1
            continue
        shares = shares / shares.sum()
        expected = total * shares
        spread = (RELATIVE_SPREAD * expected) ** 2
        estimate = expected + spread / (spread + noise**2) * (counts - expected)
        estimate = np.maximum(estimate, LEAST_RATIO * expected)
        ratio = np.log(estimate / estimate.sum() / shares)
        ratios[segment] = ratio - ratio @ shares
    if silent == len(segments):
        raise ValueError(
            f"histogram: {histogram.devices} devices are lost in noise of {noise:.3g} a bucket: take more devices, a"
            " larger epsilon or fewer buckets"
        )
    return ratios


def weigh_by_histogram(
    texts: Sequence[str],
    space: FeatureSpace,
    histogram: DpHistogram,
    temperature: float = 1.0,
    limit: float = 2.5,
) -> np.ndarray:
    """Log importance weight of each message: log p_devices - log p_pool of its features, float64 [messages].

    Args:
        texts: the pool.
        space: what the histogram counts.
        histogram: what devices released.
        temperature: divides the log weights, > 0; words and pairs overlap, so 1 already counts some evidence twice.
        limit: largest magnitude of a log weight.

    Raises:
        ValueError: the histogram counts something else, is lost in noise, or an argument is out of its range.
    """
    if histogram.features != space.version or len(histogram.counts) != space.buckets:
        raise ValueError(
            f"histogram: counts features {histogram.features!r}, and the pool's are {space.version!r}: release it again"
        )
    features: Features = space.extract(texts)
    pool = np.bincount(features.ids, minlength=space.buckets)
    segments = [part for part in space.segments.values() if part.stop > part.start]
    ratios = estimate_log_ratios(histogram, pool, segments)
    return _temper(features.sum_by_message(ratios), temperature, limit)


def score_weights(
    scores_federated: np.ndarray,
    scores_pretrained: np.ndarray,
    temperature: float = 0.1,
    limit: float = 2.5,
) -> np.ndarray:
    """Log importance weight of each message by how much likelier training on devices made it, float64 [messages].

    The federated model's scores are post-processing of a model whose release is accounted for: no further privacy.

    Args:
        scores_federated: mean log-probability per piece of each message under the federated model.
        scores_pretrained: the same under the weights it started from.
        temperature: divides what a message gained beyond the average, > 0; 0.1 is as if messages had 10 pieces.
        limit: largest magnitude of a log weight.

    Raises:
        ValueError: the scores differ in number or are not finite, or an argument is out of its range.
    """
    if scores_federated.shape != scores_pretrained.shape:
        raise ValueError(
            f"scores: {scores_federated.shape} federated and {scores_pretrained.shape} pre-trained, give equally many"
        )
    gain = np.asarray(scores_federated, float) - scores_pretrained
    if not np.isfinite(gain).all():
        raise ValueError("scores: some are not finite; score with trained weights")
    return _temper(gain - gain.mean(), temperature, limit) if len(gain) else gain


def effective_sample_size(log_weights: np.ndarray) -> float:
    """Messages of equal weight that would tell as much, (sum w)^2 / sum w^2 (Kish 1965), in [1, messages]."""
    weights = np.exp(log_weights - log_weights.max())
    return float(weights.sum() ** 2 / (weights**2).sum())


def resample(log_weights: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Places of n messages drawn without replacement by weight, int64 [n], ascending.

    The n largest of log weight + Gumbel noise are draws one after the other, each in proportion to the weights of what
    is left (Gumbel top-k; Kool et al. 2019, arXiv:1903.06059).

    Raises:
        ValueError: n is not in [0, messages].
    """
    if not 0 <= n <= len(log_weights):
        raise ValueError(f"resample: {n} of {len(log_weights)} messages; give from 0 to as many")
    keys = log_weights + rng.gumbel(size=len(log_weights))
    return np.sort(np.argsort(-keys, kind="stable")[:n])


def _temper(log_weights: np.ndarray, temperature: float, limit: float) -> np.ndarray:
    for name, value in (("temperature", temperature), ("limit", limit)):
        if not 0 < value < float("inf"):
            raise ValueError(f"adaptation: {name} is {value!r}, must be positive and finite")
    return np.clip(log_weights / temperature, -limit, limit)
