"""The objective section: one set of settings per objective, chosen by `objective.name`.

Their bounds and defaults are defined only here: the objectives import them. No torch, so that the command line can
check a configuration without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from unsee_dist.config.section import Section

Weight = Annotated[float, Field(ge=0)]  # the factor of one loss term
BARLOW_TWINS_WEIGHT = 0.0051  # its authors', at a batch of 2,048


class ObjectiveSettings(Section):
    """An objective's name and its own settings."""

    name: str

    def settings(self) -> dict[str, Any]:
        """The objective's own settings, without its name: keyword arguments of its module."""
        return self.model_dump(exclude={"name"})

    def at(self, batch: int, width: int) -> Self:  # noqa: ARG002  (an objective's own reads them)
        """With a number for each setting that is `auto`. batch: sentences a step over all ranks. width: of an embedding."""
        return self


class BarlowTwinsSettings(ObjectiveSettings):
    """Barlow Twins, arXiv 2103.03230."""

    name: Literal["barlow_twins"] = "barlow_twins"
    weight: Weight | Literal["auto"] = (
        BARLOW_TWINS_WEIGHT  # λ: of the off-diagonal terms against the diagonal
    )
    affine: bool = False  # one affine BatchNorm shared by both views, as UNSEE's released code has it

    def at(self, batch: int, width: int) -> Self:
        """auto: of N sentences an off-diagonal correlation is noise of variance 1 / N, so that noise adds 2 λ width² / N to the
        loss of a step: 2 with this weight, beside a diagonal of at most width."""
        if self.weight != "auto":
            return self
        return self.model_copy(update={"weight": min(batch / width**2, BARLOW_TWINS_WEIGHT)})


class VICRegSettings(ObjectiveSettings):
    """VICReg, arXiv 2105.04906."""

    name: Literal["vicreg"] = "vicreg"
    invariance: Weight = 25.0  # of the mean squared distance between the views
    variance: Weight = 25.0  # of the hinge that keeps each feature's deviation at 1
    covariance: Weight = 1.0  # of the squared off-diagonal covariances


class CorInfoMaxSettings(ObjectiveSettings):
    """CorInfoMax, arXiv 2209.07999, with the weights of UNSEE's released code."""

    name: Literal["corinfomax"] = "corinfomax"
    decay: Annotated[float, Field(ge=0, le=1)] = 0.01  # λ: share of the running statistics kept at each call
    eps: Annotated[float, Field(gt=0)] = 1e-6  # ε: added to the covariance's diagonal before logdet
    covariance: Weight = 0.2  # of the log-determinants
    invariance: Weight = 2000.0  # of the mean squared distance between the views
    normalise: bool = False  # rows to length 1 first, as the objective's authors do


class BYOLSettings(ObjectiveSettings):
    """BYOL's 2 - 2 cos, arXiv 2006.07733: nothing to set."""

    name: Literal["byol"] = "byol"


class SimCSESettings(ObjectiveSettings):
    """SimCSE's InfoNCE on cosine, arXiv 2104.08821."""

    name: Literal["simcse"] = "simcse"
    temperature: Annotated[float, Field(gt=0)] = 0.05  # cosines are divided by it before the softmax


_Settings = BarlowTwinsSettings | VICRegSettings | CorInfoMaxSettings | BYOLSettings | SimCSESettings
AnyObjective = Annotated[_Settings, Field(discriminator="name")]
OBJECTIVE_SETTINGS: dict[str, type[ObjectiveSettings]] = {
    each.model_fields["name"].default: each for each in get_args(_Settings)
}
