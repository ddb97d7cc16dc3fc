"""Tokens in their context: each joined with the mean of the tokens of its image that are like it.

Half a step of mean shift within the image (Fukunaga and Hostetler 1975; Carreira-Perpiñán 2006). Texture and noise of
single patches fade; borders between regions and small things stay. Arrays in, arrays out.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE = 32
"""Views that the temperature is found on."""


def in_context(tokens: Tensor, temperature: float) -> Tensor:
    """Unit vectors, of a token and of the mean of its view's tokens weighted by softmax(cosine / temperature), added
    and scaled to unit length. tokens: (view, row, column, channel) float32; same shape."""
    tokens = unit(tokens)
    flat = tokens.flatten(1, 2)[:, None]  # one attention head
    mean = F.scaled_dot_product_attention(flat, flat, flat, scale=1 / temperature)
    return unit(tokens + unit(mean)[:, 0].unflatten(1, tokens.shape[1:3]))


def find_temperature(sample: Tensor, share: float) -> float:
    """The temperature at which a token is averaged with this share of its view's tokens, by bisection: the weights'
    perplexity rises with it, so it follows the backbone. sample: (view, row, column, channel) float32."""
    low, high = 1e-3, 10.0
    while high / low > 1.01:
        middle = math.sqrt(low * high)
        shares = [perplexity(view.flatten(0, 1), middle) for view in sample[:: max(1, len(sample) // SAMPLE)]]
        if torch.stack(shares).mean() > share:
            high = middle
        else:
            low = middle
    return math.sqrt(low * high)


def perplexity(tokens: Tensor, temperature: float) -> Tensor:
    """Over how many of a view's tokens (token, channel) the weights of one spread, as a share of all; their mean."""
    tokens = unit(tokens)
    weights = torch.log_softmax(tokens @ tokens.T / temperature, -1)
    return (-(weights.exp() * weights).sum(-1)).exp().mean() / len(tokens)


def unit(x: Tensor) -> Tensor:
    """`x` over its L2 norm along the last axis."""
    return x * torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-6).reciprocal()
