"""parallel.compile: the encoders' forward as graphs of torch.compile, one for each number of rows, counted.

Compiled in place: what an encoder's call, hooks, parameters and state dict are does not change, and only its forward in training
is another function. Evaluation and exports encode as before. A graph has static shapes; rows come in few numbers (packing.bucket), so
that there are few graphs. Each is one graph without a break (the masks are in it by mask_operations.py), or it is refused.

The projector is not compiled: BatchNorm cuts it into products that are not faster so (docs/results/speed.md).
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from unsee_dist.errors import COMPILE_CACHE, UserError, writing
from unsee_dist.model.dropout import masks_of
from unsee_dist.supervision.phases import inside_phase

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from unsee_dist.model.unsee import Unsee

GRAPHS = (
    256  # of one network at most, before dynamo gives up; torch's own 8 are fewer than two networks may need
)
WITHOUT = "Or write parallel.compile=false."

Shape = tuple[int, ...]  # rows and tokens, of all views, and sentences


class Compiled(NamedTuple):
    """A graph that was made. again: there was one of this shape, which did not fit."""

    network: str
    shape: Shape
    seconds: float
    again: bool

    def __str__(self) -> str:
        rows, tokens, _ = self.shape
        return (
            f"compiled the {self.network} encoder for {rows} rows of {tokens} tokens in {self.seconds:.0f} s"
        )


@dataclass
class Compilations:
    """What was compiled so far in this process."""

    shapes: dict[str, list[Shape]] = field(default_factory=dict)  # met by each network
    made: list[Compiled] = field(default_factory=list)
    _told: int = 0

    def call(self, network: str, shape: Shape, compiled: Callable[[], Any]) -> Any:
        """The result of a compiled function, which compiles first where it has no graph for its arguments."""
        seen = self.shapes.setdefault(network, [])
        if shape in seen:
            return self._counted(network, shape, compiled)
        with inside_phase("compile"):  # it may take minutes, which is no hang
            result = self._counted(network, shape, compiled)
        seen.append(shape)
        return result

    def _counted(self, network: str, shape: Shape, compiled: Callable[[], Any]) -> Any:
        before, began = _graphs(), time.perf_counter()
        result = compiled()
        if _graphs() > before:
            seconds, again = time.perf_counter() - began, shape in self.shapes[network]
            self.made.append(Compiled(network, shape, seconds, again))
        return result

    @property
    def repeated(self) -> int:
        """Graphs of a shape that had one: more than none, and something is wrong."""
        return sum(one.again for one in self.made)

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.made)

    def news(self) -> list[Compiled]:
        """The graphs since the last call."""
        news = self.made[self._told :]
        self._told = len(self.made)
        return news

    def __str__(self) -> str:
        shapes = len({one.shape for one in self.made})
        return f"compiled {len(self.made)} graphs of {shapes} shapes in {self.seconds:.0f} s"


def check_compile(name: str, encoder: PreTrainedModel, share_rows: bool) -> None:
    """UserError: this encoder, or this machine, cannot have parallel.compile. name: of the encoder."""
    if not share_rows:
        raise UserError(
            f"parallel.compile = true, but {name} cannot separate sentences that share a row, and rows of one sentence each have "
            "any width. Write parallel.compile=false."
        )
    if masks_of(encoder) is None:
        raise UserError(
            f"parallel.compile = true, but {name} draws its dropout by torch's own generator, which gives a graph other masks. Write "
            "parallel.compile=false, or model.dropout=0."
        )
    with _cached():
        os.makedirs(_cache(), exist_ok=True)
    device = next(encoder.parameters()).device
    if device.type == "cpu":
        check_cpp_compiler()
    else:
        from torch.utils._triton import has_triton

        if not has_triton():
            raise UserError(
                "parallel.compile = true needs Triton for this GPU, and it is not there. Install the torch build for this GPU, "
                "which brings it. " + WITHOUT
            )


def check_cpp_compiler() -> None:
    """UserError: torch finds no C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError) as error:  # RuntimeError: cl on Windows
        raise UserError(
            f"parallel.compile = true needs a C++ compiler, and torch finds none ({error}). Install g++ (cl on Windows), or "
            "name one by the environment variable CXX. " + WITHOUT
        ) from error


def compile_encoders(model: Unsee, name: str) -> Compilations:
    """Compile the encoders of a model that has its device, precision and engine; each graph is made at its first call."""
    torch._dynamo.config.recompile_limit = GRAPHS
    torch._functorch.config.force_non_lazy_backward_lowering = True  # at that call, and not in the backward
    compilations = Compilations()
    for network, encoder in {"online": model.online, "target": model.target}.items():
        if encoder is not None:
            _compile(encoder, network, name, compilations)
    return compilations


def _compile(encoder: PreTrainedModel, network: str, name: str, compilations: Compilations) -> None:
    eager = encoder.forward
    graphs = torch.compile(eager, fullgraph=True, dynamic=False, options=_options())

    @functools.wraps(eager)
    def forward(**given: Any) -> Any:
        if not encoder.training:
            return eager(**given)
        own = masks_of(encoder)
        spans = own.rows.spans_N3 if own is not None and own.rows is not None else None
        shape = (*given["input_ids"].shape, 0 if spans is None else len(spans))
        with _explained(name), _cached():
            return compilations.call(network, shape, lambda: graphs(**given))

    encoder.forward = forward


def _options() -> dict[str, Any]:
    """Of inductor: without deterministic it times kernels on a GPU, and may take others in the next process."""
    return {"deterministic": True} if "deterministic" in torch._inductor.list_options() else {}


def _cache() -> str:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return os.environ.get(COMPILE_CACHE) or default_cache_dir()


def _cached() -> AbstractContextManager[None]:
    """UserError: the folder of the graphs cannot be made, or is full."""
    return writing(
        f"torch's cache of compiled graphs, {COMPILE_CACHE} = {_cache()},",
        f"Make room there, or write another folder into that variable of the environment. {WITHOUT}",
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """UserError: the encoder is not one graph, or the compiler failed."""
    from torch._dynamo.exc import BackendCompilerFailed, Unsupported
    from torch._inductor.exc import CppCompileError, InvalidCxxCompiler

    try:
        yield
    except Unsupported as error:
        raise UserError(
            f"parallel.compile = true, but {name} cannot be compiled as one graph: {_first_line(error)}. Write "
            "parallel.compile=false."
        ) from error
    except (BackendCompilerFailed, CppCompileError, InvalidCxxCompiler) as error:
        cause = getattr(error, "inner_exception", error)
        if not isinstance(cause, (CppCompileError, InvalidCxxCompiler)):
            raise
        raise UserError(
            f"parallel.compile = true, but the C++ compiler failed: {_compiler_said(cause)}. Install g++ and the headers of "
            f"python (python3-dev); where they are there, delete what torch has kept of earlier compilations, {_cache()}. {WITHOUT}"
        ) from error


def _compiler_said(error: Exception) -> str:
    """The line of a compiler's output that has its error."""
    lines = str(getattr(error, "output", error)).splitlines()
    return next((line.strip() for line in lines if "error" in line), _first_line(error))


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _graphs() -> int:
    """Graphs that dynamo has made in this process."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])
