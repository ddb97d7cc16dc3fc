"""The settings of the `head` stage's methods: a class each, and their union, which is a config's section `head`.

The classes stand apart from the networks so that a config is read without torch.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Union

from pydantic import Field

from pipeline.core.params import Params, borrowed


class MethodParams(Params):
    """What every method has. A subclass narrows `method` to its own name, and its docstring is shown to users. One
    that needs the number of clusters has a field that is borrowed from `clusters.k`."""

    network: ClassVar[str]
    """The `pipeline.heads.interface.Method` of these settings, "module:Class"."""
    method: str
    center: Literal["dataset", "none"] = "dataset"
    """`dataset` subtracts the training splits' mean token before neighbours, clustering and head."""
    memory_gib: float = Field(1.5, gt=0)
    """Training tokens up to this size are held whole; of larger sets a pool of this size, changed in the background."""
    seed: int = Field(0, ge=0, lt=2**32)


class TrainedParams(MethodParams):
    """Of a method that is trained by steps of Adam."""

    steps: int = Field(2000, ge=1)
    batch: int = Field(32, ge=1)
    """Anchor views per step."""
    learning_rate: float = Field(5e-4, gt=0)
    schedule: Literal["cosine", "constant"] = "constant"
    """`cosine` lets the learning rate fall to 0 over the steps; the published training holds it constant."""


class CorrespondenceParams(TrainedParams):
    """What the two methods that are trained with STEGO's loss have in common."""

    code: int = Field(70, ge=1)
    """Code size D."""
    samples: int = Field(11, ge=1)
    """samples² random positions are compared per view."""
    negatives: int = Field(5, ge=0)
    """Shuffles of the batch that serve as random pairs."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` lets the learning rate fall to 0 over the steps; the published training holds it constant. The default
    was set after seeing one labelled set (CamVid, docs/decisions/015): without it 2 000 steps end worse than 1 000."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of channels dropped per view, independently on both branches and on the teacher's features."""
    weight_self: float = Field(0.67, ge=0)
    weight_neighbours: float = Field(0.25, ge=0)
    weight_random: float = Field(0.63, ge=0)
    shift_self: float = 0.18
    """b of the pairs of a view with itself: similarities above attract, below repel. This and the others are the active
    defaults of the published configuration file, which belong to no benchmark; they depend on the backbone."""
    shift_neighbours: float = 0.12
    zero_clamp: bool = True
    """Code similarities below 0 count as 0."""


class StegoParams(CorrespondenceParams):
    """A small network trained with the correspondence loss, as published (STEGO, arXiv 2203.08414)."""

    network = "pipeline.heads.stego:Stego"
    method: Literal["stego"] = "stego"
    shift_random: float = 0.46
    """b of random pairs: nearly all of them repel, and by how much decides how many groups the codes fall into."""


class StegoflowParams(CorrespondenceParams):
    """STEGO's network on tokens in their context, balanced to as many groups as these seem to hold, whatever K is."""

    network = "pipeline.heads.stegoflow:Stegoflow"
    method: Literal["stegoflow"] = "stegoflow"
    steps: int = Field(500, ge=1)
    """A quarter of `stego`'s, on half as many positions: where trials on four labelled sets, whose scores were seen,
    had long stopped gaining (docs/decisions/009)."""
    samples: int = Field(8, ge=1)
    """samples² random positions are compared per view."""
    context: float = Field(0.1, ge=0, le=1)
    """Share of its image's tokens that a token is averaged with; 0 leaves tokens as they are. This default was set
    after trials whose scores on four labelled sets were seen (docs/decisions/009)."""


class SmoosegParams(TrainedParams):
    """Close features, same cluster (SmooSeg, arXiv 2310.17874)."""

    network = "pipeline.heads.smooseg:Smooseg"
    method: Literal["smooseg"] = "smooseg"
    k: int = borrowed("clusters.k")
    """Prototypes: one per cluster."""
    steps: int = Field(3000, ge=1)
    tokens: int = Field(400, ge=1)
    """Tokens of each view, drawn again at every step; the published training takes all. On one core of a CPU a step on
    32 views costs 0.2 s with 400 and 0.4 s with 884, all of a grid of 26 × 34."""
    learning_rate: float = Field(1e-4, gt=0)
    """Of the projector."""
    learning_rate_prototypes: float = Field(5e-4, gt=0)
    code: int = Field(64, ge=1)
    """Code size D."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Share of channels dropped per view, independently on both branches of the projector and on the features that
    the codes are compared with."""
    temperature: float = Field(0.1, gt=0)
    """Cosines to the teacher prototypes are divided by this before the softmax."""
    ema: float = Field(0.998, ge=0, le=1)
    """Share of the teacher prototypes that a step keeps; the rest comes from the student's."""
    shift_self: float = -0.02
    """b1 of the pairs of a view with itself: feature similarities above it ask for one cluster, below for two. Both
    depend on the backbone; published for DINO's ViT-S/8 (Potsdam-3: 0.1)."""
    shift_other: float = 0.5
    """b2 of the pairs with another view (COCO-Stuff: 0.48)."""


class CauseParams(TrainedParams):
    """A codebook by modularity, a contrasted head, a cluster probe (CAUSE without its label path, arXiv 2310.07379)."""

    network = "pipeline.heads.cause:Cause"
    method: Literal["cause"] = "cause"
    k: int = borrowed("clusters.k")
    """Centres of the cluster probe."""
    steps: int = Field(3000, ge=3)
    share_codebook: float = Field(0.25, gt=0, lt=0.5)
    """Share of the steps spent on the codebook."""
    share_probe: float = Field(0.25, gt=0, lt=0.5)
    """Share of the steps, the last ones, spent on the cluster probe. The head is trained in between."""
    probe_start: Literal["kmeans", "random"] = "kmeans"
    """Where the probe's centres begin; `random` is as published."""
    learning_rate: float = Field(1e-3, gt=0)
    code: int = Field(90, ge=1)
    """Code size D."""
    projection: int = Field(256, ge=1)
    """Size of the projections of codes that are contrasted and banked."""
    codewords: int = Field(2048, ge=1)
    """Of the codebook at most; small sets use one per eight tokens of the sample."""
    cell: int = Field(4, ge=1)
    """One token is drawn at random from each cell × cell square of a view."""
    bank: int = Field(2, ge=1)
    """Newest projections kept per codeword."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of single numbers of the tokens dropped, independently on both branches of both heads."""
    ema: float = Field(0.99, ge=0, le=1)
    """Share of the averaged head that a step keeps."""
    temperature: float = Field(0.07, gt=0)
    """Of the contrast: cosines of projections are divided by it."""
    temperature_modularity: float = Field(0.1, gt=0)
    """Products of two similarities to a codeword are divided by it before the tanh."""
    positive: float = Field(0.3, ge=-1, le=1)
    """Tokens whose codewords have a cosine above this are positives."""
    negative: float = Field(0.1, ge=-1, le=1)
    """Tokens whose codewords have a cosine below this are negatives."""


class PrimapsParams(TrainedParams):
    """Prototypes fitted to principal mask proposals (PriMaPs-EM, arXiv 2404.16818)."""

    network = "pipeline.heads.primaps:Primaps"
    method: Literal["primaps"] = "primaps"
    k: int = borrowed("clusters.k")
    """Prototypes: one per cluster."""
    batch: int = Field(32, ge=1)
    """Views per step, all tokens of each."""
    learning_rate: float = Field(5e-3, gt=0)
    threshold: float = Field(0.4, gt=0, lt=1)
    """A mask takes the uncovered tokens whose cosine to its first token is above this share of the largest."""
    covered: float = Field(0.95, gt=0, le=1)
    """A view has masks enough when they cover this share of its tokens."""
    rounds: int = Field(16, ge=1)
    """Masks per view at most."""
    components: int = Field(64, ge=1)
    """Principal components of the sample in which masks are searched."""
    ema: float = Field(0.98, ge=0, le=1)
    """Share of the prototypes that an update keeps; the rest comes from the student."""
    ema_every: int = Field(10, ge=1)
    """Steps per update of the prototypes."""
    focus: float = Field(2.0, ge=0)
    """Power of (1 − mean confidence) by which a class is weighted: rare and unsure classes count more."""


class PcaParams(MethodParams):
    """The first principal components of the tokens; nothing is trained by steps."""

    network = "pipeline.heads.pca:Pca"
    method: Literal["pca"] = "pca"
    code: int = Field(64, ge=1)
    """Code size D: how many components; at most as many as tokens have channels."""


class NoneParams(MethodParams):
    """The tokens themselves."""

    network = "pipeline.heads.none:Tokens"
    method: Literal["none"] = "none"


SETTINGS: tuple[type[MethodParams], ...] = (
    StegoParams,
    StegoflowParams,
    SmoosegParams,
    CauseParams,
    PrimapsParams,
    PcaParams,
    NoneParams,
)
"""The registry of methods: one more is a file in this folder, its class above, and a line here."""

METHODS: tuple[str, ...] = tuple(settings.model_fields["method"].default for settings in SETTINGS)
"""Their names, which `head.method` may have."""

if TYPE_CHECKING:
    HeadParams = MethodParams
else:
    HeadParams = Annotated[Union[SETTINGS], Field(discriminator="method")]  # noqa: UP007 (of a tuple)
