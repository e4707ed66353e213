"""``torch.utils.tensorboard``: curves, histograms, images and texts of a run, in files that TensorBoard shows.

The package ``tensorboard`` writes them.
"""

from __future__ import annotations

import datetime
import os
import socket
import struct
import time
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyedge.errors import ArgumentError, ShapeError
from tinyedge.tensor import Tensor

LIMITS = [sign * 1.1**k * 1e-12 for sign in (-1, 1) for k in range(775)]
"""Between these, and 0, TensorBoard counts values."""


def _values(call: str, value: Any) -> npt.NDArray[Any]:
    """On the host."""
    if isinstance(value, (list, tuple)):
        return np.stack([_values(call, item) for item in value])
    return value.detach().numpy() if isinstance(value, Tensor) else np.asarray(value)


def _number(call: str, value: Any) -> float:
    found = _values(call, value)
    if found.size != 1:
        raise ShapeError(call, "a value of one element", f"got {found.shape}")
    return float(found.item())


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An image (height, width, 1, 3 or 4 channels) as a PNG file."""
    height, width, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _pixels(call: str, image: Any, dataformats: str) -> npt.NDArray[np.uint8]:
    """(height, width, channels) from an image, or from several, which are laid side by side."""
    found = _values(call, image)
    letters = dataformats.upper()
    if found.ndim != len(letters) or sorted(letters) not in (sorted("HW"), sorted("CHW"), sorted("NCHW")):
        raise ShapeError(call, f"an image with the dims {dataformats}", f"got shape {found.shape}")
    for missing in set("NCHW") - set(letters):
        found, letters = found[..., None], letters + missing
    found = found.transpose([letters.index(letter) for letter in "NHWC"])
    if found.shape[-1] not in (1, 3, 4):
        raise ShapeError(call, "1, 3 or 4 channels", f"got {found.shape[-1]}")
    scaled = found if found.dtype == np.uint8 else np.clip(found * 255.0, 0, 255).astype(np.uint8)
    side = int(np.ceil(np.sqrt(len(scaled))))
    height, width, channels = scaled.shape[1:]
    grid = np.zeros((-(-len(scaled) // side) * height, side * width, channels), np.uint8)
    for number, each in enumerate(scaled):
        row, column = divmod(number, side)
        grid[row * height : (row + 1) * height, column * width : (column + 1) * width] = each
    return grid


class SummaryWriter:
    """Writes what a run shows into ``log_dir``; without it into ``runs/``, by the time, the host and ``comment``.

    ``max_queue`` is how many entries wait before they are written, ``flush_secs`` how long. ``purge_step`` says from
    which step on earlier entries are void, after a run began again from there. It can be used in a ``with`` block.

    Errors: ArgumentError where the package ``tensorboard`` is not installed.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, comment: str = "", purge_step: int | None = None,
        max_queue: int = 10, flush_secs: int = 120, filename_suffix: str = "",
    ) -> None:  # fmt: skip
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise ArgumentError(
                "SummaryWriter", "the package tensorboard, which writes the files", "it is not installed",
                "Run: pip install tensorboard.",
            ) from None  # fmt: skip
        if log_dir is None:
            now = datetime.datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = Path("runs") / f"{now}_{socket.gethostname()}{comment}"
        self.log_dir = str(log_dir)
        self._event, self._summary = event_pb2.Event, summary_pb2
        self._tensor, self._shape = tensor_pb2.TensorProto, tensor_shape_pb2.TensorShapeProto
        self._made: Any = EventFileWriter
        self._queue, self._seconds, self._suffix = max_queue, flush_secs, filename_suffix
        self._files: dict[str, Any] = {}
        if purge_step is not None:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._file("").add_event(self._event(step=purge_step, session_log=session, wall_time=time.time()))

    def get_logdir(self) -> str:
        """The folder of the files."""
        return self.log_dir

    def _file(self, part: str) -> Any:
        if part not in self._files:
            folder = os.path.join(self.log_dir, part) if part else self.log_dir
            self._files[part] = self._made(folder, self._queue, self._seconds, self._suffix)
        return self._files[part]

    def _add(self, tag: str, step: Any, walltime: float | None, part: str = "", **content: Any) -> None:
        value = self._summary.Summary.Value(tag=tag, **content)
        event = self._event(wall_time=time.time() if walltime is None else walltime)
        event.summary.CopyFrom(self._summary.Summary(value=[value]))
        if step is not None:
            event.step = int(step)
        self._file(part).add_event(event)

    def add_scalar(
        self, tag: str, scalar_value: Any, global_step: Any = None, walltime: float | None = None,
        new_style: bool = False, double_precision: bool = False,
    ) -> None:  # fmt: skip
        """A point of the curve ``tag``. ``new_style`` and ``double_precision`` change nothing."""
        self._add(tag, global_step, walltime, simple_value=_number("add_scalar", scalar_value))

    def add_scalars(
        self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None, walltime: float | None = None
    ) -> None:
        """A point of each of several curves, which are shown in one picture."""
        for tag, value in tag_scalar_dict.items():
            part = f"{main_tag.replace('/', '_')}_{tag}"
            self._add(main_tag, global_step, walltime, part, simple_value=_number("add_scalars", value))

    def add_histogram(
        self, tag: str, values: Any, global_step: Any = None, bins: Any = "tensorflow", walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:  # fmt: skip
        """How values are distributed. ``bins`` as in ``np.histogram``, or "tensorflow": finer towards 0."""
        found = _values("add_histogram", values).astype(np.float64).reshape(-1)
        if not found.size:
            raise ShapeError("add_histogram", "at least one value", "got none")
        edges = sorted([*LIMITS, 0.0]) if isinstance(bins, str) and bins == "tensorflow" else bins
        counts, limits = np.histogram(found, edges)
        there = np.flatnonzero(counts)
        first, last = (there[0], there[-1] + 1) if there.size else (0, 1)
        histogram = self._summary.HistogramProto(
            min=found.min(), max=found.max(), num=found.size, sum=found.sum(), sum_squares=found @ found,
            bucket_limit=[limits[first], *limits[first + 1 : last + 1]], bucket=[0, *counts[first:last]],
        )  # fmt: skip
        self._add(tag, global_step, walltime, histo=histogram)

    def _add_pixels(self, tag: str, pixels: npt.NDArray[np.uint8], step: Any, walltime: float | None) -> None:
        height, width, channels = pixels.shape
        image = self._summary.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=png(pixels)
        )
        self._add(tag, step, walltime, image=image)

    def add_image(
        self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:  # fmt: skip
        """An image of floats in [0, 1] or of uint8. ``dataformats`` names its dims."""
        self._add_pixels(tag, _pixels("add_image", img_tensor, dataformats), global_step, walltime)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:  # fmt: skip
        """Several images as one."""
        self._add_pixels(tag, _pixels("add_images", img_tensor, dataformats), global_step, walltime)

    def add_figure(
        self, tag: str, figure: Any, global_step: Any = None, close: bool = True, walltime: float | None = None
    ) -> None:
        """A figure of matplotlib."""
        figure.canvas.draw()
        self._add_pixels(tag, np.array(figure.canvas.buffer_rgba()), global_step, walltime)
        if close:
            import matplotlib.pyplot as plt

            plt.close(figure)

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """A text, in Markdown."""
        plugin = self._summary.SummaryMetadata.PluginData(plugin_name="text", content=b"")
        shape = self._shape(dim=[self._shape.Dim(size=1)])
        content = self._tensor(dtype="DT_STRING", string_val=[text_string.encode()], tensor_shape=shape)
        metadata = self._summary.SummaryMetadata(plugin_data=plugin)
        self._add(f"{tag}/text_summary", global_step, walltime, metadata=metadata, tensor=content)

    def add_hparams(
        self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any], hparam_domain_discrete: Any = None,
        run_name: str | None = None, global_step: Any = None,
    ) -> None:  # fmt: skip
        """What a run was made with, as a text, and what came out, as scalars. The other arguments change nothing."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparam_dict.items())
        self.add_text("hparams", f"| name | value |\n| --- | --- |\n{rows}", global_step)
        for name, value in metric_dict.items():
            self.add_scalar(name, value, global_step)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Nothing, with a warning: ``te.compile(model).explain()`` tells what a model runs."""
        warnings.warn("add_graph writes nothing here: te.compile(model) has explain() and chart()", stacklevel=2)

    def flush(self) -> None:
        """Write what waits."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write what waits, and close the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


__all__ = ["SummaryWriter"]
