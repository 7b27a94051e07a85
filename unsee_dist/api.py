"""`import unsee_dist`: what the commands do, as functions. Each calls what its command calls.

    load_config   the settings of a run                    unsee config show
    prepare       text -> a corpus                         unsee prepare
    train         settings -> a run                        unsee train
    evaluate      a model -> a table of scores             unsee evaluate
    load_run      a run's folder -> encoder and tables     unsee runs, unsee report

A mistake of the user is a UserError (a ValueError) with the sentence that the command would print. Preparing and training
start processes, which do not import the script they were called from: it needs no `if __name__ == "__main__":`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from unsee_dist.config import RunConfig, load
from unsee_dist.config.load import valid
from unsee_dist.config.prepare import PrepareSettings
from unsee_dist.config.spelling import closest
from unsee_dist.errors import UserError, foreseen
from unsee_dist.metrics.names import BEST, STEP, TIME, dev

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from unsee_dist.data.prepare.report import PreparationReport
    from unsee_dist.evaluation.models import EvaluationModel
    from unsee_dist.report.run_files import RunFiles, State
    from unsee_dist.tracking.metrics_file import Line

Place = str | PathLike[str]
OF_A_TASK = ("task", "group", "benchmark", "metric", "score", "tfidf", "unusable", "seconds")


@contextmanager
def in_sentences() -> Iterator[None]:
    """What a command prints as a sentence (a package that is not installed, a full disk) is a UserError here."""
    try:
        yield
    except Exception as error:
        sentence = None if isinstance(error, UserError) else foreseen(error)
        if sentence is None:
            raise
        raise sentence from error


def load_config(config: Place, overrides: Sequence[str] = ()) -> RunConfig:
    """The settings of a YAML file, or of a preset by its name, with `section.key=value` overrides on top.

    UserError (ConfigError): every mistake of every file and override, each with its place and what to write instead.
    """
    if isinstance(overrides, str):
        raise UserError(f"overrides = {overrides!r} is one text. Write a list: [{overrides!r}].")
    return load(str(config), overrides)


@in_sentences()
def prepare(
    inputs: Place | Sequence[Place],
    out: Place,
    *,
    processes: int | None = None,
    engine: str = "local",
    **settings: object,
) -> PreparationReport:
    """Write the corpus of these inputs into the folder `out`; one that is complete is reported, an interrupted one continued.

    inputs: what `unsee prepare` takes: files, folders, globs, URLs, "installed-docs". settings: those of
    PrepareSettings by name, such as dev=500 (pairs that are held out into out/dev.tsv) or field="body". processes: None = all
    usable cores; engine: "local" or "ray"; no byte depends on these two. The report counts sentences (read, dropped, kept),
    bytes and shards. UserError: a setting, an input or the folder cannot be used, or no sentence is left.
    """
    from unsee_dist.data.prepare.pipeline import prepare as run
    from unsee_dist.log import progress_console

    for name, value in settings.items():
        if name not in PrepareSettings.model_fields:
            meant = closest(name, PrepareSettings.model_fields)
            instead = f"Did you mean {meant}?" if meant else f"Use {', '.join(PrepareSettings.model_fields)}."
            raise UserError(f"{name} = {value} is not a setting of prepare. {instead}")
    given = [inputs] if isinstance(inputs, str | PathLike) else inputs
    checked = valid(PrepareSettings, settings)
    return run([str(each) for each in given], Path(out), checked, progress_console(), processes, engine)


@in_sentences()
def train(config: RunConfig) -> Run:
    """Train the run in config.run.dir, or continue it where its newest checkpoint is; a complete one is left as it is.

    One process here. In a script that `torchrun` or `deepspeed` starts, every rank calls it, and all of them return the run. Ctrl-C (or SIGTERM) ends it after
    its step with a checkpoint and raises unsee_dist.Stopped: the same call continues. UserError: a mistake in what the settings name.
    """
    if not isinstance(config, RunConfig):
        raise UserError(f"config = {config!r} is not a configuration. Write load_config({config!r}).")
    from unsee_dist.distributed.environment import OF_A_TRAINING, restored
    from unsee_dist.run import train as run

    with restored(OF_A_TRAINING):  # else what the caller starts next would take itself for a rank
        run(config)
    return load_run(config.run.dir)


@in_sentences()
def evaluate(
    model: Place | Run, *, tiers: str | Sequence[str] = (), tasks: Place | Sequence[Place] = ()
) -> pd.DataFrame:
    """The scores of a model, a row a task, as `unsee evaluate` measures and keeps them.

    model: a run, a checkpoint, an exported folder, "owner/name" of the Hub, or "tfidf". tiers: "sts", "fast", "v2", "v1", or names
    of mteb's tasks. tasks: folders of your own task files. Columns: task, group, benchmark, metric, score (x 100; missing where the
    embeddings are unusable, and `unusable` says why), tfidf (the baseline's score of an STS task, x 100), seconds.
    UserError: no model, no task, or an extra is not installed.
    """
    tiers = [tiers] if isinstance(tiers, str) else tiers
    if not tiers and not tasks:
        raise UserError(
            'nothing to evaluate on. Write tiers="sts", or tasks="DIR", a folder of your own task files.'
        )
    import pandas as pd

    from unsee_dist.evaluation.evaluate import measure
    from unsee_dist.evaluation.tasks import EvaluationRequest

    folders = [tasks] if isinstance(tasks, str | PathLike) else tasks
    source = str(model.folder if isinstance(model, Run) else model)
    scores = measure(EvaluationRequest(source, tiers, [Path(each) for each in folders])).scores
    return pd.DataFrame([{name: getattr(score, name) for name in OF_A_TASK} for score in scores])


def load_run(folder: Place) -> Run:
    """The run in a folder, whatever its state. UserError: the folder is no run's, or its settings cannot be read."""
    from unsee_dist.report.run_files import open_run

    files = open_run(Path(folder))
    if files.config is None:
        raise UserError(" ".join(files.problems))
    return Run(files)


class Run:
    """A run's folder as it was when it was loaded: its state, its tables, its encoder. `load_run` and `train` make it."""

    def __init__(self, files: RunFiles) -> None:
        self._files = files

    def __repr__(self) -> str:
        steps = self._files.steps
        return f"<run {self.name}: {self.state}, step {self.step}{f' of {steps}' if steps else ''}, {self.folder}>"

    @property
    def folder(self) -> Path:
        return self._files.folder

    @property
    def name(self) -> str:
        return self._files.name

    @property
    def state(self) -> State:
        """running, silent (its process has not answered for two minutes), complete, stopped, or begun (no checkpoint yet)."""
        return self._files.state

    @property
    def step(self) -> int:
        """The newest step that its files know of."""
        return self._files.step

    @property
    def config(self) -> RunConfig:
        """The settings of its first start; passwords and tokens are masked."""
        assert self._files.config is not None
        return self._files.config

    @property
    def problems(self) -> tuple[str, ...]:
        """Sentences about files of the run that cannot be read; what they hold is missing here."""
        return self._files.problems

    def metrics(self) -> pd.DataFrame:
        """metrics.jsonl as a table: a row a step, a column a number, NaN where a step has none.

        Names, meanings and units: the reference of metrics.jsonl. Step 0 is the evaluation before training.
        """
        import pandas as pd

        rows: dict[int, Line] = {}
        for line in self._files.lines:
            rows[line[STEP]] = line | rows.get(line[STEP], {})  # an evaluation's line follows its step's
        return pd.DataFrame(list(rows.values()) or [], columns=None if rows else [STEP]).set_index(STEP)

    def scores(self) -> pd.DataFrame:
        """The evaluations that decide: rows before (training), best (that of best/) and last, of those that there are.

        Columns: the step, and the names of an evaluation line, such as dev/sts (Spearman x 100) and dev/mrr (0 to 1).
        """
        import pandas as pd

        rows = {"before": self._files.before, "best": self._files.best, "last": self._files.last}
        table = pd.DataFrame({name: row for name, row in rows.items() if row}).T
        return table.drop(columns=[TIME, dev(BEST)], errors="ignore")

    @in_sentences()
    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Embeddings of sentences, (n, D) float32, not normalised: compare them by cosine.

        The encoder is that of best/, else of final/, as `unsee evaluate RUN` takes it, dropout off. Texts are cut to model.max_tokens word pieces.
        UserError: the run has neither folder yet, one is damaged, or sentence-transformers is not installed.
        """
        if isinstance(sentences, str):
            raise UserError(f"sentences = {sentences!r} is one text. Write a list: [{sentences!r}].")
        texts = list(sentences)
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise UserError(f"sentences[{place}] = {text!r} is not a text. Write strings.")
        # what no text gives has no width of its own
        return self._model.embed(texts) if texts else self._model.embed([""])[:0]

    @cached_property
    def _model(self) -> EvaluationModel:
        from unsee_dist.evaluation.models import open_model

        return open_model(str(self.folder))
