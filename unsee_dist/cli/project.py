"""`unsee init`: the files of a project of your own, copied out of the installed package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unsee_dist.config.shipped import FOLDERS, damaged_installation, shipped
from unsee_dist.errors import ROOM, UserError, file_error
from unsee_dist.files.atomic import write_file
from unsee_dist.files.folders import make_folder
from unsee_dist.files.remote import check_local

app = typer.Typer()

# pip compiles scripts beside themselves; a wheelhouse is made from the sources of this package.
LEFT_OUT = {"__pycache__", "airgapped"}

README = """\
# A project of unsee_dist

Written by `unsee init`; every file here is yours to change.

| folder | what is in it |
|---|---|
| `configs/` | `base.yaml` explains every setting; the other files are presets that extend it |
| `configs/sweeps/` | searches over settings, for `unsee sweep` |
| `slurm/` | batch scripts: `train.sh`, `prepare.sh`, `evaluate.sh`, `sweep.sh` (with `ray-node.sh`) |
| `cluster/` | hosts for ssh, Ray clusters, an MLflow server; its README.md explains how to start each |

Run every command in this folder. A preset here has priority over the package's preset of the same name.

```sh
unsee prepare my-sentences.txt --out data/mine
unsee config ls
unsee train unsee-vicreg data.shards=data/mine run.dir=runs/mine                    # one process
deepspeed --num_gpus 8 --module unsee_dist.train --config unsee-vicreg data.shards=data/mine
torchrun --nproc-per-node 8 -m unsee_dist.train --config unsee-vicreg data.shards=data/mine
unsee sweep tiny data.shards=data/mine evaluate.sts=dev.tsv                         # needs unsee_dist[sweep]
```

On Slurm, submit from this folder; the options of sbatch override those in the script:

```sh
sbatch --cpus-per-task=16 slurm/prepare.sh my-sentences.txt --out data/mine
sbatch --nodes=4 --ntasks-per-node=8 --gpus-per-node=8 slurm/train.sh unsee-vicreg data.shards=data/mine
sbatch --array=1-8 slurm/evaluate.sh runs/unsee-vicreg/best --tier v1               # needs unsee_dist[mteb]
```

The scripts use `.venv/` of this folder when it is there, else `python` and `unsee` of the PATH.
Another environment: `PYTHON=/path/to/python sbatch slurm/train.sh ...`, `UNSEE=/path/to/unsee sbatch slurm/sweep.sh ...`.
"""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one without these files.")],
) -> None:
    """Copy configurations, Slurm scripts and cluster files into DIR, for a project of your own."""
    sources = {folder / path: content for path, content in _shipped_files().items()}
    check_local(folder, "DIR")
    readme = folder / "README.md"
    try:
        if folder.is_file():
            raise UserError(f"DIR = {folder} is a file. Give a folder.")
        changed = [path for path, content in sources.items() if path.exists() and not _has(path, content)]
        if readme.exists() and readme.read_bytes() != README.encode():
            changed.append(readme)
        if changed:
            names = ", ".join(str(path.relative_to(folder)) for path in changed)
            raise UserError(
                f"{folder} has files of these names with other contents: {names}. Nothing was written; "
                "choose another folder, or move these files away."
            )
        make_folder(folder)
        for path, content in sources.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, content)  # whole: half of one would be taken for the user's next time
            path.chmod(0o755 if path.suffix == ".sh" else 0o644)
        write_file(readme, README)
    except OSError as error:
        full = error.errno in ROOM
        remedy = "Make room and write the same command again, or give" if full else "Give"
        raise file_error(
            f"DIR = {folder} cannot be written ({error.strerror}). {remedy} another folder.", error
        ) from error
    typer.echo(f"{len(sources) + 1} files in {folder}; {readme} explains them.")


def _shipped_files() -> dict[Path, bytes]:
    """The files of this package that a project gets: their places in it, and contents. UserError: one cannot be read."""
    files: dict[Path, bytes] = {}
    for name in FOLDERS:
        folder = shipped(name)
        paths = sorted(
            path for path in folder.rglob("*") if not LEFT_OUT & set(path.parts) and not path.is_dir()
        )
        if not paths:
            raise damaged_installation(folder, "it is missing or empty")
        for path in paths:
            try:
                files[Path(name) / path.relative_to(folder)] = path.read_bytes()
            except OSError as error:
                raise damaged_installation(path, error.strerror or str(error)) from error
    return files


def _has(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content
