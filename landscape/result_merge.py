"""The record of a merged network beside those it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from landscape.records import Array, Dims, Record, json_numbers


@dataclass(frozen=True)
class OfModel:
    """The loss, or one metric of the task, of every model."""

    value: Annotated[Array, Dims("model", "mean over the examples", "{}")]  # (M,)
    stderr: Annotated[Array, Dims("model", "standard error of the mean", "{}_stderr")]  # (M,)
    # value of the merged model minus this one's, example by example
    difference: Annotated[Array, Dims("model", "merged minus this model", "{}_difference")]
    difference_stderr: Annotated[
        Array, Dims("model", "its standard error, paired by example", "{}_difference_stderr")
    ]


@dataclass(frozen=True)
class Merge(Record):
    """Losses and metrics of the inputs of a merge, and of its result, which stands last."""

    model: Annotated[tuple[str, ...], Dims("model", "file of the model")]  # (M,)
    weight: Annotated[Array, Dims("model", "weight in the recipe; NaN without one")]  # (M,)
    distance: Annotated[Array, Dims("model", "distance from the merged model in weight space")]
    quantities: Mapping[str, OfModel]  # "loss" first
    method: str
    recipe: str  # in words
    base: str = ""  # file that task vectors start from
    batchnorm: bool = False  # the network has any
    bn: str = "keep"  # what became of its statistics
    l2: float = 0.0
    complete: bool = True
    title: str = ""

    @property
    def kind(self) -> str:
        """Name of the result in files and on the command line."""
        return "merge"

    @property
    def loss(self) -> OfModel:
        """The loss; the metrics are beside it in `quantities`."""
        return self.quantities["loss"]

    def summary(self) -> dict[str, Any]:
        """What a person wants to know first, in JSON types; non-finite numbers become None."""
        models = {
            name: json_numbers(
                {
                    "weight": float(self.weight[i]),
                    "distance": float(self.distance[i]),
                    **{key: float(q.value[i]) for key, q in self.quantities.items()},
                    **{f"{key}_stderr": float(q.stderr[i]) for key, q in self.quantities.items()},
                    "loss_difference": float(self.loss.difference[i]),
                    "loss_difference_stderr": float(self.loss.difference_stderr[i]),
                }
            )
            for i, name in enumerate(self.model)
        }
        return {
            "kind": self.kind,
            "title": self.title,
            "complete": self.complete,
            "method": self.method,
            "recipe": self.recipe,
            "base": self.base or None,
            "bn": self.bn if self.batchnorm else None,
            "l2": self.l2,
            "merged": self.model[-1],
            "models": models,
        }

    def best(self) -> int:
        """Index of the input with the least loss."""
        return int(np.nanargmin(self.loss.value[:-1]))
