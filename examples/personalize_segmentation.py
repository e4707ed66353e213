"""A segmentation model learns from its user's corrections while it runs on video, without making frames late.

    pip install "tinyedge[cpu,demo,import]"
    pip download --no-deps mediapipe==0.10.21 && unzip -o mediapipe-*.whl 'mediapipe/modules/selfie_segmentation/*'
    python examples/personalize_segmentation.py mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite

MediaPipe's selfie segmentation finds a person in front of a camera; here the camera hangs upside down, which the model
has never seen. The video is synthetic: a real portrait (one that ships with matplotlib, or ``--portrait FILE``) is cut
out, by the model itself where it stands upright, and moves before a photograph (one that ships with scikit-learn), in
changing light and with noise. So for each frame the right mask is known. For some frames the user corrects the mask;
``te.adapt.Live`` trains the decoder on these in what is left of each frame's time. Printed: IoU before and after, on
frames of the video's end that were never corrected, and the frames' times. Writes segmentation.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import tinyedge as te
import tinyedge.nn.functional as F
from tinyedge import nn, optim

SIZE = 256


def picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    """RGB in [0, 1]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size), np.float32) / 255


def shipped() -> tuple[Path, Path]:
    """A portrait and a background that come with the demo's packages."""
    import matplotlib
    from sklearn import datasets

    background = Path(datasets.__file__).parent / "images" / "china.jpg"
    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg", background


def masked(model: nn.Module, frame: np.ndarray) -> np.ndarray:
    with te.no_grad():
        return model(te.tensor(frame[None])).numpy()[0]


def video(portrait: np.ndarray, cut: np.ndarray, background: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames (count, 256, 256, 3), upside down, and their masks (count, 256, 256, 1)."""
    from PIL import Image

    random = np.random.default_rng(0)
    person = Image.fromarray((np.concatenate([portrait, cut], 2) * 255).astype(np.uint8), "RGBA")
    frames, masks = [], []
    for k in range(count):
        turn = 2 * np.pi * k / 40
        scale = 0.7 + 0.2 * np.sin(0.7 * turn)
        side = int(SIZE * scale)
        layer = Image.new("RGBA", (SIZE, SIZE))
        layer.paste(person.resize((side, side)), (int((SIZE - side) * (0.5 + 0.5 * np.sin(turn))), SIZE - side))
        values = np.asarray(layer, np.float32) / 255
        shift = int((background.shape[1] - SIZE) * (0.5 + 0.5 * np.cos(0.3 * turn)))
        scene = background[:, shift : shift + SIZE]
        frame = scene * (1 - values[..., 3:]) + values[..., :3] * values[..., 3:]
        frame = frame * (0.75 + 0.25 * np.sin(1.3 * turn)) + random.normal(0, 0.02, frame.shape)
        frames.append(np.clip(frame, 0, 1)[::-1])
        masks.append(values[::-1, :, 3:] > 0.5)
    return np.stack(frames).astype(np.float32), np.stack(masks).astype(np.float32)


def iou(found: np.ndarray, wanted: np.ndarray) -> float:
    """The intersection over the union of masks."""
    found, wanted = found > 0.5, wanted > 0.5
    return float((found & wanted).sum() / max((found | wanted).sum(), 1))


def decoder(model: nn.Module) -> list[str]:
    """The parameters that are trained: those of the second half."""
    names = [name for name, _ in model.named_parameters()]
    return names[len(names) // 2 :]


def loss_of(model: nn.Module, frame: te.Tensor, mask: te.Tensor) -> te.Tensor:
    return F.binary_cross_entropy(model(frame), mask)


def draw(path: Path, rows: dict[str, np.ndarray], titles: list[str]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(rows), len(titles), figsize=(2 * len(titles), 2.1 * len(rows)), squeeze=False)
    for line, (name, images) in zip(axes, rows.items()):
        for place, image, title in zip(line, images, titles):
            place.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
            place.set(xticks=[], yticks=[], title=title if line is axes[0] else "")
        line[0].set_ylabel(name)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def main(arguments: list[str] | None = None) -> dict[str, float]:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="selfie_segmentation.tflite")
    parser.add_argument("--portrait", type=Path, help="a picture of one person, upright")
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--budget", type=float, default=100.0, help="milliseconds for a frame")
    parser.add_argument("--every", type=int, default=6, help="the user corrects one of so many frames")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for segmentation.png (default: ./out)")
    given = parser.parse_args(arguments)

    model = te.load_model(given.model).eval()
    standard, background = shipped()
    portrait = picture(given.portrait or standard, (SIZE, SIZE))
    cut = np.clip(masked(model, portrait) * 1.5 - 0.25, 0, 1)
    frames, masks = video(portrait, cut, picture(background, (2 * SIZE, SIZE)), given.frames)
    last = given.frames * 3 // 4  # frames from here on are never corrected
    tests = range(last, given.frames, max(1, (given.frames - last) // 20))

    def measure() -> tuple[float, np.ndarray]:
        found = np.stack([masked(model, frames[k]) for k in tests])
        return iou(found, masks[list(tests)]), found

    print(f"upright portrait: {cut.mean():.0%} of the picture is the person")
    before, masks_before = measure()
    model.freeze(except_=decoder(model))
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = optim.Adam(trained, lr=given.lr, accumulate=2)
    live = te.adapt.Live(model, optimizer, loss_of, given.budget, tolerance=0.02, check_every=16, replay_bytes="32MB")
    samples = [(te.tensor(frame[None]), te.tensor(mask[None])) for frame, mask in zip(frames, masks)]
    live.prepare(*samples[0])
    corrected = range(0, last, given.every)
    for k in corrected[:3]:
        live.hold_out(*samples[k])  # the first corrections only say whether it gets better

    began = time.perf_counter()
    for k, (frame, mask) in enumerate(samples):
        started = time.perf_counter()
        live(frame).numpy()  # what the user sees
        if k in corrected[3:]:
            live.add(frame, mask)
        live.train()
        left = given.budget / 1e3 - (time.perf_counter() - started)
        time.sleep(max(0.0, left))  # the camera's next frame
    seconds = time.perf_counter() - began

    after, masks_after = measure()
    stats = live.stats
    print(f"trained {sum(p.numel() for p in trained):,} of {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"IoU on {len(tests)} frames without a correction: {before:.3f} before, {after:.3f} after")
    print(
        f"{stats.steps} steps, {stats.updates} updates, {stats.rollbacks} rollbacks; {len(samples) / seconds:.1f} "
        f"frames a second of {1e3 / given.budget:.1f}; a frame took {stats.median_ms:.1f} ms, 99th percentile "
        f"{stats.p99_ms:.1f} ms of {given.budget:.0f} ms; {stats.late} late"
    )
    chosen = list(range(0, len(tests), max(1, len(tests) // 6)))[:6]
    numbers = [tests[k] for k in chosen]
    rows = {
        "frame": frames[numbers], "right mask": masks[numbers],
        "before": masks_before[chosen], "after": masks_after[chosen],
    }  # fmt: skip
    given.output.mkdir(parents=True, exist_ok=True)
    draw(given.output / "segmentation.png", rows, [f"frame {number}" for number in numbers])
    print(f"wrote {given.output / 'segmentation.png'}")
    return {"before": before, "after": after, "p99_ms": stats.p99_ms, "late": stats.late, "steps": stats.steps}


if __name__ == "__main__":
    main()
