"""The configuration of a run: YAML, `extends`, and `section.key=value`, checked before anything starts.

from unsee_dist.config import load
config = load("configs/unsee-vicreg.yaml", ["train.lr=3e-5", "data.shards=data/mine"])
config.train.lr                       # 3e-05
config.objective.settings()           # keyword arguments of OBJECTIVES[config.objective.name]
"""

from unsee_dist.config.load import CONFIG, load, recorded
from unsee_dist.config.mistakes import ConfigError, Mistake
from unsee_dist.config.presets import presets
from unsee_dist.config.sections import RunConfig, every_steps

__all__ = ["CONFIG", "ConfigError", "Mistake", "RunConfig", "every_steps", "load", "presets", "recorded"]
