"""stegoflow: STEGO's loss on tokens in their context, with the repulsion that gives as many groups as these hold.

Two changes to STEGO (arXiv 2203.08414), neither of which reads a label:

- Context. To a token is added the mean of the tokens of its image, weighted by softmax(cosine / temperature): half a
  step of mean shift within the image (Fukunaga and Hostetler 1975; Carreira-Perpiñán 2006). Texture and noise of single
  patches fade, borders between regions and small things stay. The temperature is such that a token is averaged with a
  given share of its image's tokens, so it follows the backbone.
- Balance. STEGO's shift of random pairs decides into how many groups the codes fall, and the published one is right for
  some backbones and sets only. Here it is a multiplier that follows a condition: G groups of one size have a mean
  squared cosine of 1/G over random pairs of tokens. While codes are more alike than that the shift rises, else falls.
  G is how many groups the tokens of a sample seem to hold, counted as the stage `suggestion` counts them; K is not
  read, so another K trains nothing. Codes cannot collapse, and cannot fall apart into many more groups than these.

Pairs of a view with itself and with its neighbours are STEGO's.

The network's output is what k-means compares; the token in its context is the detail beside it: what the network has
made alike on purpose can still be separated when clusters are regrouped (`pipeline.numerics.regroup`).
"""

import math

import torch
from torch import Tensor

from pipeline.heads.interface import Batch
from pipeline.heads.settings import StegoflowParams
from pipeline.heads.stego import Pairs, Stego
from pipeline.numerics.codes import Codes
from pipeline.numerics.context import find_temperature, in_context, unit
from pipeline.numerics.kmeans import likely_groups

BLOCK = 16
"""Views whose context is computed at once."""
EACH = 100
"""Tokens of a view that groups are counted in, about."""
RATE = 0.02
"""Largest change of the shift in one step."""


class Stegoflow(Stego):
    """STEGO's network, on tokens in their context; `shift` is b of random pairs, `temperature` that of the context,
    `groups` how many groups codes are balanced to."""

    regrouped = True
    shift: Tensor
    temperature: Tensor
    groups: Tensor

    def __init__(self, params: StegoflowParams, channels: int) -> None:
        super().__init__(params, channels)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("groups", torch.ones(()))

    def prepare(self, sample: Tensor, seed: int) -> None:
        if self.params.context:
            self.temperature.fill_(find_temperature(sample, self.params.context))
        views = torch.cat([self.context(block) for block in sample.split(BLOCK)]).flatten(1, 2)
        self.groups.fill_(likely_groups(views[:, :: max(1, views.shape[1] // EACH)].cpu().numpy()))

    def context(self, tokens: Tensor) -> Tensor:
        return in_context(tokens, float(self.temperature)) if self.params.context else unit(tokens)

    def encode(self, tokens: Tensor) -> Codes:
        context = self.context(tokens)
        code = self(context)
        return Codes(code, context * torch.linalg.vector_norm(code, dim=-1, keepdim=True))

    def shift_random(self, shuffled: list[Pairs], batch: Batch) -> Tensor:
        now = self.shift.clone()
        with torch.no_grad():
            alike = [
                torch.bmm(a.codes, b.codes[order].transpose(1, 2)).float().square().mean() for a, b, order in shuffled
            ]
            excess = (torch.stack(alike).mean() * self.groups).log().clamp(-1, 1)
            self.shift += RATE * 0.5 * (1 + math.cos(math.pi * batch.step / batch.steps)) * excess
        return now
