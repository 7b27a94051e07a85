"""How `unsee --help` and the help of a command are arranged: commands in the order of work, with examples to copy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import typer
from rich.markup import escape

# Panels and their commands, in the order of work. A command that is in none comes last.
PANELS = {
    "Begin": ("quickstart", "init", "doctor"),
    "Text to corpus": ("prepare", "shards"),
    "Train": ("config", "train", "checkpoint", "runs"),
    "Evaluate and use": ("evaluate", "compare", "report", "export"),
    "Many runs, measurements": ("sweep", "reproduce", "bench"),
}
ORDER = {name: place for place, name in enumerate(name for names in PANELS.values() for name in names)}
PANEL = {name: panel for panel, names in PANELS.items() for name in names}

# A line an example: at most 76 columns, so that a terminal of 80 shows it whole.
EXAMPLES = {
    "doctor": (
        "unsee doctor",
        "srun unsee doctor",
        "torchrun --nproc-per-node 8 -m unsee_dist doctor",
        "deepspeed --module unsee_dist doctor",
    ),
    "prepare": (
        "unsee prepare tickets.txt --out data/mine --dev 1000",
        "unsee prepare tickets.csv --field text --split sentence --out data/mine",
        "unsee prepare 'dumps/*.jsonl.zst' more/ --out data/all",
    ),
    "train": (
        "unsee train unsee-vicreg data.shards=data/mine --dry-run --ranks 8",
        "unsee train unsee-vicreg data.shards=data/mine run.dir=runs/mine",
        "deepspeed --module unsee_dist.train --config unsee-vicreg train.lr=3e-5",
        "srun python -m unsee_dist.train --config unsee-vicreg",
    ),
    "evaluate": (
        "unsee evaluate runs/mine --tier sts",
        "unsee evaluate owner/name --tasks docs/tasks --json",
    ),
    "compare": ("unsee compare bert-base-uncased runs/mine runs/other",),
    "export": ("unsee export runs/mine --out model --onnx",),
    "sweep": (
        "unsee sweep paper data.shards=data/mine",
        "unsee sweep --status runs/paper",
        "unsee sweep --resume runs/paper",
    ),
    "reproduce": (
        "unsee reproduce objectives --small data.shards=data/mine --out out",
        "unsee reproduce objectives --tasks docs/tasks --engine ray --out out",
    ),
    "bench": ("unsee bench --only gpu", "unsee bench unsee-vicreg data.shards=data/mine"),
    "init": ("unsee init my-project",),
    "config check": ("unsee config check unsee-vicreg data.shards=data/mine --ranks 8",),
    "config show": ("unsee config show unsee-vicreg train.batch=256",),
    "shards verify": ("unsee shards verify data/mine",),
    "checkpoint ls": ("unsee checkpoint ls runs/mine",),
}


def arrange(apps: Iterable[typer.Typer], above: str = "") -> None:
    """Give the commands of some apps their panels and examples. above: the command that these are part of."""
    for app in apps:
        for command in app.registered_commands:
            name = command.name or command.callback.__name__  # type: ignore[union-attr]  # a registered command has one
            command.rich_help_panel = PANEL.get(name) if not above else None
            command.epilog = _epilog(EXAMPLES.get(f"{above} {name}".strip(), ()))
        for group in app.registered_groups:
            if group.name:
                group.rich_help_panel = PANEL.get(group.name)
                arrange([group.typer_instance], group.name)  # type: ignore[list-item]  # a registered group has one


def in_order(names: Iterable[str]) -> list[str]:
    """Commands in the order of work."""
    return sorted(names, key=lambda name: ORDER.get(name, len(ORDER)))


def _epilog(examples: Sequence[str]) -> str | None:
    """Lines of their own: typer joins single ends of lines."""
    return "\n\n".join(["Examples:", *(f"  {escape(each)}" for each in examples)]) if examples else None
