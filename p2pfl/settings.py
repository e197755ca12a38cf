"""The sections that say what is learned and how it is gossiped, and how a bad one is refused.

The terms of a live network and a simulation's scenario share these sections unchanged. Parsing is strict: unknown keys and
wrong types are refused, all at once, each with its place and the nearest known key.
"""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from p2pfl.failure import Failure

# What is counted goes on the wire or into memory, and learning is in float32: a larger number is a slip of the hand.
COUNT_MAX = 1_000_000_000
STEPS_MAX = 1_000_000  # of one round, and rows of one minibatch
NUMBER_MAX = 1e9


class Section(BaseModel):
    """One table of the file. Hyphens in keys are underscores."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _underscores(cls, values: Any) -> Any:
        return {str(k).replace("-", "_"): v for k, v in values.items()} if isinstance(values, Mapping) else values


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("no file's name has a NUL in it")
    return text


FileName = Annotated[str, AfterValidator(_without_nul)]
"""Of a file, or of something bundled."""


class TaskSection(Section):
    """`name` is a bundled task ("digits", "breast_cancer", "synthetic") or "file.py:object"; the rest are its arguments."""

    name: FileName = "digits"
    model: str | None = None  # bundled tasks: "mlp", "softmax", ...
    features: int | None = Field(default=None, ge=1, le=COUNT_MAX)  # synthetic only
    samples: int | None = Field(default=None, ge=1, le=COUNT_MAX)
    classes: int | None = Field(default=None, ge=2, le=COUNT_MAX)


class DataSection(Section):
    """How a bundled data set is divided: "iid", "dirichlet:ALPHA", "shards:K" or "quantity:ALPHA"."""

    partition: str = "iid"
    samples_per_peer: int | None = Field(default=None, ge=1, le=COUNT_MAX)  # drawn with replacement where the set is too small


class TrainingSection(Section):
    """Local training. Either `local_steps` minibatches or `local_epochs` passes a round; `weighting` "samples" scales the steps
    by a peer's share of the samples, at most `weighting_cap` times."""

    local_steps: int | None = Field(default=None, ge=0, le=STEPS_MAX)
    local_epochs: int | None = Field(default=None, ge=1, le=STEPS_MAX)
    batch_size: int = Field(default=16, ge=1, le=STEPS_MAX)
    learning_rate: float = Field(default=0.1, gt=0, le=NUMBER_MAX)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=NUMBER_MAX)
    initial: Literal["shared", "own"] = "shared"  # all peers start from one vector, or each from its own
    weighting: Literal["peers", "samples"] = "peers"
    weighting_cap: float = Field(default=4.0, ge=1, le=NUMBER_MAX)
    mean_samples: int | None = Field(default=None, ge=1, le=COUNT_MAX)  # what "samples" compares with; known to a simulation

    @model_validator(mode="after")
    def _one_measure(self) -> "TrainingSection":
        if self.local_steps is not None and self.local_epochs is not None:
            raise ValueError("give local_steps or local_epochs, not both")
        return self


OverlayKind = Literal["ring", "random_regular", "exponential", "epidemic", "complete"]


class TopologySection(Section):
    """A graph or schedule by the name of its function, with its arguments; "random_regular:4" is kind and first argument in
    one. An `overlay` in its place is worked out anew from the members that are live; it takes `degree` and `seed`."""

    kind: FileName = "ring"
    weights: Literal["metropolis", "uniform", "max_degree", "best_constant", "fastest"] = "metropolis"
    degree: int | None = None
    rows: int | None = None
    columns: int | None = None
    dimension: int | None = None
    p: float | None = None
    k: int | None = None
    m: int | None = None
    fanout: int | None = None
    offsets: tuple[int, ...] | None = None
    seed: int | None = None  # of the graph; the run's seed where it is not given
    overlay: OverlayKind | None = None
    timers: Literal["lan", "edge"] = "lan"  # of the membership that an overlay follows

    @model_validator(mode="after")
    def _one_sort(self) -> "TopologySection":
        if self.overlay is None:
            if self.timers != "lan":
                raise ValueError("timers are those of an overlay: give overlay as well")
        elif more := self.model_dump(exclude_defaults=True).keys() - {"overlay", "degree", "seed", "timers"}:
            raise ValueError(f"an overlay has no {', '.join(sorted(more))}: leave it out")
        return self


class OverlaySection(Section):
    """Who is whose neighbor where members come and go: `topology.overlay`, worked out by every member alike."""

    overlay: OverlayKind = "random_regular"
    degree: int = Field(default=4, ge=1, le=64)  # of random_regular, where it is even; the fanout of epidemic
    timers: Literal["lan", "edge"] = "lan"  # of membership: one machine room, or members far apart

    @model_validator(mode="after")
    def _rings(self) -> "OverlaySection":
        if self.overlay == "random_regular" and self.degree % 2:
            raise ValueError("random_regular is made of rings, which give two links each: choose an even degree")
        return self


class GossipSection(Section):
    """The two ways of gossip; see `protocol.charter.GossipRules` for the meaning of every number."""

    mode: Literal["rounds", "async"] = "rounds"
    floor_s: float = Field(default=1.0, ge=0, le=NUMBER_MAX)
    ceiling_s: float = Field(default=10.0, gt=0, le=NUMBER_MAX)
    deviations: float = Field(default=6.0, ge=0, le=NUMBER_MAX)
    gather_s: float = Field(default=30.0, ge=0, le=NUMBER_MAX)
    period_s: float = Field(default=1.0, gt=0, le=NUMBER_MAX)
    age_cap: int = Field(default=1000, ge=0, le=COUNT_MAX)
    step_window: int = Field(default=1000, ge=1, le=COUNT_MAX)
    staleness: int = Field(default=1, ge=0, le=COUNT_MAX)
    checkpoint_s: float = Field(default=30.0, gt=0, le=NUMBER_MAX)


class CodecSection(Section):
    """How a vector becomes bytes."""

    kind: Literal["dense", "float16"] = "dense"


class LimitsSection(Section):
    """Bounds on content; what is over them is refused.

    Parameters of float32 models in practice are far below 1000, and values far above it, though finite, would drown everybody's
    in the mean: a member who sends them is refused as "too_large".
    """

    max_abs: float = Field(default=1e3, gt=0, allow_inf_nan=False)


class Agreement(Section):
    """What all peers of a run agree on, simulated or real, beside the graph and how long it takes."""

    seed: int = Field(default=7, ge=0, lt=2**32, strict=True)  # what numpy and networkx take
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    training: TrainingSection = TrainingSection()
    gossip: GossipSection = GossipSection()
    codec: CodecSection = CodecSection()
    limits: LimitsSection = LimitsSection()

    @property
    def of_a_trainer(self) -> dict[str, dict[str, Any]]:
        """The sections that a trainer needs, as plain tables."""
        return {name: getattr(self, name).model_dump() for name in ("task", "data", "training", "codec", "limits")}


Parsed = TypeVar("Parsed", bound=BaseModel)


def parse(model: type[Parsed], values: Mapping[str, Any], source: str) -> Parsed:
    """`values` as `model`, or one `Failure` that names every wrong key. `source` is the file, for people."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # A bad item of an array makes pydantic complain of the array too, as being none.
        errors = error.errors()
        places = [e["loc"] for e in errors]
        outer = {place[:n] for place in places for n in range(1, len(place))}
        problems = "; ".join(_problem(model, values, e) for e in errors if e["loc"] not in outer)
        stop = "" if problems.endswith("?") else "."
        raise Failure("bad_configuration", f"{source}: {problems}{stop}", "Mend the named keys and run it again.") from None


def _problem(model: type[BaseModel], values: Mapping[str, Any], error: Any) -> str:
    path = [str(part + 1 if isinstance(part, int) else part) for part in error["loc"]]  # people count from 1
    where = ".".join(path) or "file"
    if error["type"] == "model_type":
        return f"{where}: a table of keys belongs here"
    if error["type"] == "tuple_type":
        return f"{where}: " + (f"tables headed [[{where}]] belong here" if _known_keys(model, path) else "a list belongs here")
    if error["type"] != "extra_forbidden":
        said = error["msg"].removeprefix("Value error, ")
        return f"{where}: {said[:1].lower()}{said[1:]}"
    near = difflib.get_close_matches(path[-1], _known_keys(model, path[:-1]), n=1)
    return f"{where}: unknown key" + (f", did you mean {near[0]!r}?" if near else "")


def _known_keys(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part.isdigit():  # the place in an array of tables, whose model is known already
            continue
        field = model.model_fields.get(part)
        annotation = field.annotation if field else None
        annotation = next(iter(get_args(annotation)), annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
