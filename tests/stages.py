"""The picture of the stages, drawn from the imports: ``python -m tests.stages`` writes ``docs/stages.svg``.

The order of the stages is that of ``tests/test_layers.py``. The picture holds its edges as text too, in ``<desc>``, so
that a test can tell whether it is stale.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from tests.test_layers import MODULES, PACKAGE, STAGES, imports_of

PICTURE = Path(__file__).parents[1] / "docs" / "stages.svg"

GROUND = ("errors", "config", "files", "shapes", "blocks", "dtypes", "containers")
"""Stages that nearly every other one imports: their boxes are grey."""

WHAT = {
    "errors": "exceptions that build their own text",
    "config": "environment variables, cache folder",
    "files": "whole writes, bounded reads",
    "shapes": "shapes, strides, broadcasting",
    "blocks": "blocks of quantised types",
    "dtypes": "element types",
    "containers": "tensors in nested containers",
    "ir": "plain data: Slot, Step, KernelSpec, Kernel, LaunchGroup",
    "kernels": "KernelSpec -> OpenCL C; choice of tiles",
    "backends": "memory, build, launch: NumPy and OpenCL",
    "autograd": "dispatch of op calls, backward, checkpoint",
    "tensor": "Tensor, Parameter",
    "ops": "the ops, one file a family",
    "gradients": "te.autograd: functions of users, gradients of gradients",
    "distributions": "samples, densities, entropies",
    "nn": "modules, layers, losses",
    "func": "te.func: functions that compute derivatives",
    "report": "explain, profile, chart",
    "compiler": "te.compile: record, fuse, plan memory, replay",
    "optim": "optimizers, schedules",
    "amp": "scaled losses for float16",
    "utils": "PyTorch's names of data",
    "onnx": "torch.onnx by its name",
    "adapt": "LoRA; what fits in a memory budget",
    "federated": "Flower's client and server",
    "models": "LeNet-5, MobileNet, ResNet, Llama, BERT",
    "data": "data sets, progress bar",
    "convert": "files: ONNX, TFLite, TensorFlow, GGUF, safetensors",
    "__init__": "the public names of tinyedge",
    "bench": "tinyedge bench",
    "cli": "the command line",
    "__main__": "python -m tinyedge",
}

COLOURS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f", "#b6992d", "#b07aa1", "#9c755f")
ROW, BOX, LEFT, TOP, WIDTH = 30, 22, 30, 24, 900


def edges() -> dict[str, list[str]]:
    """For each stage, in order, the earlier stages that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in MODULES.items():
        stage = module.partition(".")[0] or "__init__"
        found[stage] |= {imported.partition(".")[0] or "__init__" for imported in imports_of(path)} - {stage}
    return {stage: sorted(found[stage], key=STAGES.index) for stage in STAGES}


def text_of(found: Mapping[str, list[str]]) -> str:
    """The edges, a line for each stage."""
    return "\n".join(f"{stage} <- {', '.join(imported) or 'nothing'}" for stage, imported in found.items())


def direct(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The edges that do not follow from others: drawn all together they would hide each other."""
    reached: dict[str, set[str]] = {}
    for stage, imported in found.items():  # in order, so what is imported was met before
        reached[stage] = set(imported).union(*[reached[other] for other in imported])
    return {
        stage: [other for other in imported if not any(other in reached[third] for third in imported)]
        for stage, imported in found.items()
    }


def drawn(found: Mapping[str, list[str]]) -> str:
    """The SVG: a row for each stage, top down, and an arc from each stage to those that import it, but for arcs that
    follow from others. The description has all.
    """
    middle = {stage: TOP + ROW * number + BOX // 2 for number, stage in enumerate(found)}
    start = LEFT + 490
    arcs = []
    for number, (stage, imported) in enumerate(direct(found).items()):
        for other in imported:
            top, bottom = middle[other], middle[stage]
            reach = start + 20 + (bottom - top) * 0.62
            arcs.append(
                f'<path d="M{start} {bottom} C{reach:.0f} {bottom} {reach:.0f} {top} {start} {top}" '
                f'stroke="{COLOURS[number % len(COLOURS)]}"><title>{stage} imports {other}</title></path>'
            )
    rows = []
    for number, stage in enumerate(found):
        is_folder = (PACKAGE / stage).is_dir()
        name = f"{stage}/" if is_folder else f"{stage}.py"
        y = middle[stage]
        fill = "#eeeeee" if stage in GROUND else "#ffffff"
        rows.append(
            f'<rect x="{LEFT}" y="{y - BOX // 2}" width="100" height="{BOX}" rx="4" fill="{fill}" '
            f'stroke="{COLOURS[number % len(COLOURS)]}"/>'
            f'<text x="{LEFT + 50}" y="{y + 4}" text-anchor="middle" font-weight="bold">{name}</text>'
            f'<text x="{LEFT + 112}" y="{y + 4}">{escape(WHAT[stage])}</text>'
            f'<circle cx="{start}" cy="{y}" r="3" fill="{COLOURS[number % len(COLOURS)]}"/>'
        )
    height = TOP + ROW * len(found) + 10
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">',
            "<title>Each stage imports only from those above it. Arcs that follow from others are left out.</title>",
            f"<desc>\n{escape(text_of(found))}\n</desc>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<g fill="none" stroke-width="1.3">{"".join(arcs)}</g>',
            *rows,
            "</svg>\n",
        ]
    )


def text_in(picture: Path) -> str:
    """The edges that a picture was made of."""
    desc = ElementTree.parse(picture).getroot().find("{http://www.w3.org/2000/svg}desc")
    assert desc is not None
    return (desc.text or "").strip()


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(edges()))
