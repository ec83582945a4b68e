"""What programs call: Python functions as text, by name; each has those that it needs."""

from sparsecircuits.kernels.rms_norm import EPSILON

HELPERS = {
    "softmax": '''
def softmax(scores, sink):
    """Shares of attention by score; a sink (None: there is none) takes its own."""
    top = max(scores if sink is None else [*scores, sink])
    sizes = [math.exp(score - top) for score in scores]
    total = sum(sizes) + (0 if sink is None else math.exp(sink - top))
    return [size / total for size in sizes]
''',
    "gelu": '''
def gelu(x):
    """The activation function of neurons."""
    return x * (1 + math.erf(x / math.sqrt(2))) / 2
''',
    "gelu_tanh": '''
def gelu_tanh(x):
    """The activation function of neurons."""
    return x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
''',
    "relu": '''
def relu(x):
    """The activation function of neurons."""
    return max(x, 0.0)
''',
    "kept": '''
def kept(value, place, rivals, inputs, position, activation=lambda x: x):
    """The value if it is among the largest of its site (AbsTopK), else zero. rivals: how many of them and of the fixed
    sizes have a place; these sizes; a constant and weights of the inputs for each."""
    slots, fixed, rows = rivals
    size = abs(value)
    larger = sum(other > size for other in fixed[min(position, len(fixed) - 1)])
    for row, (constants, weights) in enumerate(rows):
        other = constants[min(position, len(constants) - 1)] + sum(weight * inputs[k] for k, weight in weights)
        larger += row != place and abs(activation(other)) > size
    return value if larger < slots else 0.0
''',
    "embedding": '''
def embeddings(counts, channels, values, width):
    """Tokens' embeddings, almost all zero, from the nonzeros: how many each token has, their channels and values."""
    pairs = zip(map(int, numbers(channels)), numbers(values))
    for found in [[next(pairs) for _ in range(int(count))] for count in numbers(counts)]:
        yield [dict(found).get(channel, 0.0) for channel in range(width)]
''',
    "read": f'''
def read(x, gains, beside, k):
    """What a layer reads: the normed stream, position channels beside it; of all the k largest (AbsTopK)."""
    scale = 1 / math.sqrt(sum(value * value for value in x) / len(x) + {EPSILON!r})
    normed = [value * scale * gain for value, gain in zip(x, gains)] + list(beside)
    chosen = set(sorted(range(len(normed)), key=lambda place: -abs(normed[place]))[:k])
    return [value if place in chosen else 0.0 for place, value in enumerate(normed)]
''',
    "add": '''
def add(stream, constant, writes):
    """Add to each position of the stream what is always written, and what nodes write."""
    for x, write in zip(stream, writes):
        x[:] = [value + constant[channel] + write.get(channel, 0.0) for channel, value in enumerate(x)]
''',
    "numbers": '''
def numbers(text, width=None):
    """Numbers from base64 of little-endian float32; a width makes rows of them."""
    raw = base64.b64decode(text)
    found = struct.unpack(f"<{len(raw) // 4}f", raw)
    return found if width is None else [found[k : k + width] for k in range(0, len(found), width)]
''',
}
