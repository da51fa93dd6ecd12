"""The released method's equations in loops over steps, heads and modalities.

One clip at a time, in evaluation mode, on Python floats (double precision). No tensor, no
batch, no mask and nothing shared with the package: where the two agree, both were written
from the same equations, not from each other.

Shapes are written as nested lists: a vector ``[d]``, steps ``[n][d]``, a matrix
``[out][in]``. Weights are dictionaries:

    linear   {"weight": [out][in], "bias": [out]}
    norm     {"gain": [d], "shift": [d]}; for the batch's also {"mean": [d], "variance": [d]}
"""

import math

MODALITIES = ("text", "audio", "vision")
EPSILON = 1e-5  # of both normalisations, the usual one


def dot(left, right):
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total += a * b
    return total


def add(left, right):
    return [a + b for a, b in zip(left, right, strict=True)]


def sigmoid(x):
    return 1.0 / (1.0 + math.exp(-x))


def relu(vector):
    return [x if x > 0.0 else 0.0 for x in vector]


def softmax(row):
    greatest = max(row)
    powers = [math.exp(x - greatest) for x in row]
    total = sum(powers)
    return [power / total for power in powers]


def linear(vector, weights):
    return [
        dot(row, vector) + shift
        for row, shift in zip(weights["weight"], weights["bias"], strict=True)
    ]


def layer_norm(vector, weights):
    width = len(vector)
    mean = sum(vector) / width
    variance = sum((x - mean) ** 2 for x in vector) / width
    return [
        (x - mean) / math.sqrt(variance + EPSILON) * gain + shift
        for x, gain, shift in zip(vector, weights["gain"], weights["shift"], strict=True)
    ]


def batch_norm(vector, weights):
    """With the running statistics, as in evaluation."""
    return [
        (x - weights["mean"][i]) / math.sqrt(weights["variance"][i] + EPSILON) * weights["gain"][i]
        + weights["shift"][i]
        for i, x in enumerate(vector)
    ]


def time_mean(steps):
    return [sum(step[i] for step in steps) / len(steps) for i in range(len(steps[0]))]


def project(steps, weights):
    """``Z_m = X_m W_m + b_m``: ``[n][d_m] -> [n][d]``."""
    return [linear(step, weights) for step in steps]


def cosine_map(left, right):
    """Cosine of every step of one modality with every step of another, ``[n][n]``."""
    return [
        [dot(a, b) / (math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))) for b in right] for a in left
    ]


def common_shares(z, modality):
    """``A_m``: softmax over the last axis of the least of the two other modalities' maps."""
    first, second = (cosine_map(z[modality], z[k]) for k in MODALITIES if k != modality)
    least = [
        [min(a, b) for a, b in zip(row, other, strict=True)]
        for row, other in zip(first, second, strict=True)
    ]
    return [softmax(row) for row in least]


def specific_shares(common):
    """``softmax(1 - A_m)``: a softmax of one minus a softmax."""
    return [softmax([1.0 - share for share in row]) for row in common]


def mix(shares, steps):
    """Matrix product of ``[n][n]`` shares with ``[n][d]`` steps."""
    width = len(steps[0])
    return [
        [sum(share * step[i] for share, step in zip(row, steps, strict=True)) for i in range(width)]
        for row in shares
    ]


def decouple(z):
    """Common and specific parts of every modality, ``{m: [n][d]}`` each."""
    common, specific = {}, {}
    for modality in MODALITIES:
        shares = common_shares(z, modality)
        common[modality] = mix(shares, z[modality])
        specific[modality] = mix(specific_shares(shares), z[modality])
    return common, specific


def attend(steps, weights, heads):
    """Multi-head attention of steps to one another, scale ``1 / sqrt(d / heads)``."""
    queries = [linear(step, weights["query"]) for step in steps]
    keys = [linear(step, weights["key"]) for step in steps]
    values = [linear(step, weights["value"]) for step in steps]
    size = len(steps[0]) // heads
    contexts = []
    for query in queries:
        context = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = [dot(query[own], key[own]) / math.sqrt(size) for key in keys]
            shares = softmax(scores)
            for i in range(head * size, (head + 1) * size):
                context.append(
                    sum(share * value[i] for share, value in zip(shares, values, strict=True))
                )
        contexts.append(context)
    return contexts


def intra_modal_attention(common, weights, heads):
    """``C'_m = LayerNorm(ctx + Linear(ctx))``."""
    return [
        layer_norm(add(context, linear(context, weights["linear"])), weights["norm"])
        for context in attend(common, weights, heads)
    ]


def act(specific, weights):
    """``a_m[i] = sigmoid(w_m . S_m[i] + b_m)``: ``[n]``."""
    return [sigmoid(dot(weights["weight"], step) + weights["bias"]) for step in specific]


def apply_actions(specific, actions):
    """``U(S, a) = a * S``."""
    return [[action * x for x in step] for action, step in zip(actions, specific, strict=True)]


def encoder_layer(steps, weights, heads):
    """A post-norm transformer encoder layer with ReLU and no dropout."""
    attended = [linear(context, weights["out"]) for context in attend(steps, weights, heads)]
    result = []
    for step, context in zip(steps, attended, strict=True):
        middle = layer_norm(add(step, context), weights["norm1"])
        outer = linear(relu(linear(middle, weights["inner"])), weights["outer"])
        result.append(layer_norm(add(middle, outer), weights["norm2"]))
    return result


def gate(common, complementary, weights):
    """``g_m h_m`` with ``h_m = [c_m ; e_m]`` and ``g_m = sigmoid(W2 (W1 h_m))``: ``[2d]``."""
    both = common + complementary
    (opening,) = linear(linear(both, weights["inner"]), weights["outer"])
    return [sigmoid(opening) * x for x in both]


def fuse(gated):
    """``h = (1/3) sum g_m h_m``."""
    return [sum(gated[m][i] for m in MODALITIES) / 3.0 for i in range(len(gated["text"]))]


def head(hidden, weights):
    """Linear, (Dropout,) ReLU, BatchNorm, Linear."""
    return linear(
        batch_norm(relu(linear(hidden, weights["linear"])), weights["norm"]), weights["output"]
    )


def critic(state, actions, weights, heads):
    """``Q(s, a)`` of one clip: ``{m: [n][d]}`` and ``{m: [n]}`` to a number."""
    joined = []
    for modality in MODALITIES:
        both = [
            step + [action] * heads
            for step, action in zip(state[modality], actions[modality], strict=True)
        ]
        joined += time_mean(encoder_layer(both, weights["encoder"][modality], heads))
    hidden = linear(linear(joined, weights["linear1"]), weights["linear2"])
    (value,) = linear(batch_norm(relu(hidden), weights["norm"]), weights["value"])
    return value


def predict(features, weights, heads):
    """The whole prediction of one clip.

    Args:
        features: ``{m: [n][d_m]}``, the real steps only.
        weights: ``projection``, ``attention``, ``policy``, ``encoder`` and ``gate`` per
            modality; ``head``.
        heads: Attention heads.

    Returns:
        What comes out of the head, ``[outputs]``, and the actions, ``{m: [n]}``.
    """
    z = {m: project(features[m], weights["projection"][m]) for m in MODALITIES}
    common, specific = decouple(z)
    actions, gated = {}, {}
    for m in MODALITIES:
        enhanced = intra_modal_attention(common[m], weights["attention"][m], heads)
        actions[m] = act(specific[m], weights["policy"][m])
        kept = apply_actions(specific[m], actions[m])
        encoded = encoder_layer(kept, weights["encoder"][m], heads)
        gated[m] = gate(time_mean(enhanced), time_mean(encoded), weights["gate"][m])
    return head(fuse(gated), weights["head"]), actions
