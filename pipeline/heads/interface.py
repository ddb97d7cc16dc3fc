"""What a method of the `head` stage is: from cached tokens to codes, one file per method in this folder.

The stage owns everything that is not the method: reading tokens, drawing anchors and neighbours, the optimiser's loop,
checkpoints, resuming, the artifact. A method owns its loss and its tensors. All that it learns is in its `state_dict`
(parameters, and buffers for what is not trained by gradients), so that saving, resuming and opening need no method's
own code.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.numerics.codes import Codes


class Batch(NamedTuple):
    """What one training step sees. No labels, no pixels, no backbone."""

    table: Tensor
    """(view × row × column, channel) tokens, centred and in their context, in half precision: the pool of views in
    memory."""
    grid: tuple[int, int]
    """Rows and columns of tokens of a view."""
    anchors: Tensor
    """(B,) int64 rows of views in `table`, all different, on the CPU."""
    others: Tensor | None
    """(B,) int64: a neighbour of each anchor; None where there is no other image."""
    step: int
    """From 0. Every random draw comes from a generator seeded with (params.seed, step): a run can be resumed."""
    steps: int
    """How many there will be."""

    def generator(self, seed: int) -> torch.Generator:
        """Of this step's random draws, on the CPU."""
        return torch.Generator().manual_seed(seed * 1_000_003 + self.step)

    def maps(self, views: Tensor) -> Tensor:
        """All tokens of some views, (view, row, column, channel), in the table's dtype and on its device."""
        size = self.grid[0] * self.grid[1]
        return self.table.view(-1, size, self.table.shape[1])[views.to(self.table.device)].unflatten(1, self.grid)


class Method(nn.Module):
    """Base of the methods. Constructed as `SomeMethod(params, channels)`, `params` being its settings
    (`pipeline.heads.settings`) with their borrowed fields resolved; torch's global generator is seeded before. Rebuilt
    from the same two when an artifact is opened, so the shapes of all tensors follow from them."""

    regrouped = False
    """Whether `clusters.method=auto` regroups the clusters that k-means finds in its codes
    (`pipeline.numerics.regroup`)."""

    def prepare(self, sample: Tensor, seed: int) -> None:
        """Fit what gradients do not: principal components, a codebook, first prototypes. Called once, before step 0,
        never after a resume; results go to buffers of a fixed shape.

        sample: (view, row, column, channel) float32, centred, of at most some hundred training views, on the method's
        device.
        """

    def context(self, tokens: Tensor) -> Tensor:
        """What `loss` finds in the table instead of a view's tokens: (view, row, column, channel) float32, centred, of
        whole views, to the same shape. Computed once whenever a view is read, after `prepare`; `encode` gets the tokens
        without it."""
        return tokens

    def loss(self, batch: Batch, dtype: torch.dtype, log: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of one step, a scalar with a gradient, and where `log` named scalars for the training log, the same
        names at every step.

        May update buffers (moving averages). `dtype` is that of the matrix products (bfloat16 under autocast on a
        device that has it, else float32)."""
        raise NotImplementedError

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Of the optimiser; a group without `lr` takes `params.learning_rate`. All follow `params.schedule`."""
        return [{"params": list(self.parameters())}]

    def encode(self, tokens: Tensor) -> Codes:
        """Codes of whole views: (view, row, column, channel) float32, centred, to `Codes` of tensors (view, row,
        column, D or E) float32.

        A code may depend on every token of its view, and on no other view: how views are put together does not count.
        What a code is near to is decided by the cosine to prototypes. No gradient is needed."""
        raise NotImplementedError

    def prototypes(self) -> Tensor | None:
        """(K, D) unit vectors, the method's own clusters in the space of what is compared; None where k-means is to
        find them. K is `clusters.k`, borrowed."""
        return None
