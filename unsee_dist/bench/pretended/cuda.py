"""What torch.cuda and deepspeed's accelerator answer while a GPU is pretended: a device with one stream."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from unsee_dist.bench.pretended.device import PretendedGPU
from unsee_dist.bench.pretended.tensors import Patch
from unsee_dist.distributed.deepspeed_import import import_deepspeed
from unsee_dist.model import mask_rows


class Streams:
    """The one stream of the GPU, and events in it: everything has happened already. `wait` counts as a synchronisation."""

    def __init__(self, synchronise: Callable[..., None]) -> None:
        class Event:
            def __init__(self, *_: object, **__: object) -> None:
                """Whatever CUDA's takes."""

            def record(self, *_: object) -> None:
                """In order already."""

            def query(self) -> bool:
                return True

            def elapsed_time(self, _: Event) -> float:
                return 1.0

            wait = wait_stream = wait_event = record
            synchronize = staticmethod(synchronise)

        class Stream(Event):
            def record_event(self, event: Event | None = None) -> Event:
                return event or Event()

            def __enter__(self) -> Stream:
                return self

            def __exit__(self, *_: object) -> None:
                """Nothing was changed."""

        self.Event, self.Stream, self.only = Event, Stream, Stream()


def cuda_answers(gpu: PretendedGPU) -> Iterator[Patch]:
    """What torch.cuda answers. `is_available` stays False: nobody may find a real GPU."""
    streams = Streams(gpu.synchronise)
    answers: dict[str, Any] = {
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: "pretended GPU",
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
        "device_count": lambda: 1,
        "set_device": lambda _: None,
        "synchronize": gpu.synchronise,
        "current_stream": lambda *_: streams.only,
        "default_stream": lambda *_: streams.only,
        "stream": lambda stream: stream,
        "Stream": streams.Stream,
        "Event": streams.Event,
    }
    for name, answer in answers.items():
        yield torch.cuda, name, answer
    yield torch.accelerator, "current_stream", answers["current_stream"]
    # Triton needs a real GPU: masks are drawn by the plain operations that define them
    yield mask_rows, "has_triton", lambda: False


def accelerator(gpu: PretendedGPU, backend: str) -> Any:
    """deepspeed's accelerator for it: the names of a GPU, one stream, and every `synchronize` counted."""
    base: Any = import_deepspeed().accelerator.cpu_accelerator.CPU_Accelerator
    streams = Streams(gpu.synchronise)

    def tensor_type(dtype: torch.dtype) -> Any:
        return property(lambda _: functools.partial(torch.tensor, dtype=dtype, device="cuda"))

    class Accelerator(base):  # type: ignore[misc]  # deepspeed has no types
        def __init__(self) -> None:
            super().__init__()
            self._name, self._communication_backend_name = "cuda", backend

        def is_synchronized_device(self) -> bool:
            return False

        def device_name(self, device_index: int | None = None) -> str:
            return "cuda" if device_index is None else f"cuda:{device_index}"

        def current_device(self) -> int:
            return 0

        def current_device_name(self) -> str:
            return "cuda:0"

        def device_count(self) -> int:
            return 1

        def is_fp16_supported(self) -> bool:
            return True

        def on_accelerator(self, tensor: Tensor) -> bool:
            return tensor.device.type == "cuda"

        def stream(self, stream: Any) -> Any:
            return stream

        def current_stream(self, _: int | None = None) -> Any:
            return streams.only

        def default_stream(self, _: int | None = None) -> Any:
            return streams.only

        def synchronize(self, _: int | None = None) -> None:
            gpu.synchronise()

        Stream = property(lambda _: streams.Stream)
        Event = property(lambda _: streams.Event)
        BFloat16Tensor, ByteTensor = tensor_type(torch.bfloat16), tensor_type(torch.uint8)
        DoubleTensor, FloatTensor = tensor_type(torch.float64), tensor_type(torch.float32)
        HalfTensor, IntTensor = tensor_type(torch.float16), tensor_type(torch.int32)
        LongTensor = tensor_type(torch.int64)

    return Accelerator()
