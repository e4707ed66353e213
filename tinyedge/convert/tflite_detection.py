"""TFLite's ops at the end of a detector."""

from __future__ import annotations

from typing import Any

from tinyedge.convert.checks import MAX_FOLDED_ELEMENTS
from tinyedge.convert.layouts import UnsupportedUse
from tinyedge.convert.tflite_file import Operator
from tinyedge.convert.tflite_lowering import Lowering, lowers

SCALES = ("y_scale", "x_scale", "h_scale", "w_scale")


@lowers("custom TFLite_Detection_PostProcess")
def detection_post_process(b: Lowering, op: Operator) -> None:
    """Its options are a map in the format of FlexBuffers."""
    from flatbuffers import flexbuffers  # the package tflite needs it too

    given = flexbuffers.GetRoot(bytearray(op.custom_options)).AsMap

    def number(key: str, default: Any = None) -> Any:
        try:
            value = given[key]
        except KeyError:
            if default is None:
                raise UnsupportedUse(f"without {key}") from None
            return default
        return value.AsFloat if value.IsFloat else value.AsInt

    most, classes, per_box = (
        int(number(key)) for key in ("max_detections", "num_classes", "max_classes_per_detection")
    )
    if min(most, classes, per_box) < 1 or max(most, classes, per_box, most * per_box) > MAX_FOLDED_ELEMENTS // 4:
        raise UnsupportedUse(f"of {most} detections in {classes} classes")
    if len(op.outputs) != 4:
        raise UnsupportedUse(f"with {len(op.outputs)} outputs")
    names = [f"{b.output(op, n)} found" for n in range(4)]
    b.emit(
        "DetectionPostProcess", [b.last(b.name(op, n)) for n in range(3)], outputs=names,
        scales=tuple(float(number(key)) for key in SCALES), most=most, classes=classes, per_box=per_box,
        per_class=int(number("detections_per_class", 100)), least=float(number("nms_score_threshold")),
        overlap=float(number("nms_iou_threshold")), regular=int(bool(number("use_regular_nms", 0))),
    )  # fmt: skip
    for n, name in enumerate(names):
        b.done(b.output(op, n), name, False)


@lowers("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5")
def non_max_suppression(b: Lowering, op: Operator) -> None:
    soft = op.op.endswith("5")
    if soft and float(b.value(op, 5).reshape(-1)[0]) != 0:
        raise UnsupportedUse("that lowers scores, instead of leaving boxes out")
    names = [f"{b.output(op, n)} found" for n in range(len(op.outputs))]
    if len(names) != (3 if soft else 2):
        raise UnsupportedUse(f"with {len(names)} outputs")
    values = [b.last(b.name(op, n)) for n in range(5)]
    b.emit("SelectBoxes", values, outputs=names, padded=1, scored=int(soft))
    for n, name in enumerate(names):
        b.done(b.output(op, n), name, False)


__all__: list[str] = []
