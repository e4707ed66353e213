"""``tinyedge bench``: what to measure, tables, pictures, and a file for machines."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tinyedge
from tinyedge.backends import default_backend
from tinyedge.bench import ops, processes, roofline, startup, sustained
from tinyedge.bench.processes import OURS, PEERS, Case, Timing, medians_of
from tinyedge.bench.scripts import SCRIPTS, Script
from tinyedge.bench.workloads import INFERENCE, TRAINING, WORKLOADS, Run, Workload, workload
from tinyedge.errors import ArgumentError
from tinyedge.report.charts import new_figure
from tinyedge.report.program import SAVED, Profile, buffers
from tinyedge.report.text import memory_text, table

PROFILE_REPEATS = 10

DESCRIPTION = """Measure training steps at batch 1 (forward, backward, gradient accumulation, an SGD update at every
32nd step), eager and compiled; or inference; or the steps of ordinary scripts at their own batch (forward, backward and
update); or single ops, against what the device can do. It runs on the backend that TINYEDGE_BACKEND names. Each case is
measured in processes of its own, one after the other, in your environment. If a peer can be run in several ways, such
as PyTorch with one thread and with all, the fastest one counts. Nothing else should run meanwhile."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``tinyedge bench``."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "workloads",
        nargs="*",
        metavar="WORKLOAD",
        help=", ".join(WORKLOADS) + "; none: all of them; scripts: " + ", ".join(SCRIPTS),
    )
    parser.add_argument("--scripts", action="store_true", help="all scripts; only these if no WORKLOAD is named")
    parser.add_argument("--inference", action="store_true", help="forward alone, without gradients")
    parser.add_argument(
        "--ops", action="store_true", help="single ops, as a roofline; only these if no WORKLOAD is named"
    )
    parser.add_argument("--profile", action="store_true", help="also the time of each kernel of the compiled program")
    parser.add_argument(
        "--startup", action="store_true", help="start-up: the import and the first steps, in new processes"
    )
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="the compiled training step for N minutes: its time, and the energy"
    )
    parser.add_argument(
        "--against", action="append", choices=list(PEERS), default=[], help="also measure this peer; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=30, metavar="N", help="take the median of at least N calls (30)")
    parser.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="draw pictures into this folder (needs matplotlib)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all measurements into this file")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure what ``options`` ask for; the exit status."""
    if options.rounds < 1:
        raise ArgumentError("tinyedge bench", "--rounds of at least 1", f"got {options.rounds}")
    if options.minutes is not None and not options.minutes > 0:
        raise ArgumentError("tinyedge bench", "--minutes above 0", f"got {options.minutes}")
    chosen = [workload(name) for name in options.workloads]
    if options.scripts:
        chosen += [script for script in SCRIPTS.values() if script not in chosen]
    if not chosen and not options.ops:
        chosen = list(WORKLOADS.values())
    models = [item for item in chosen if isinstance(item, Workload)]
    scripts = [item for item in chosen if isinstance(item, Script)]
    if scripts and options.inference:
        raise ArgumentError("tinyedge bench --inference", "models", f"{scripts[0].name} is a script, which trains")
    for name in options.against:
        if name in processes.ONLY_INFERS and not options.inference:
            raise ArgumentError(f"tinyedge bench --against {name}", "--inference", "it does not train")
    descriptions, cases = {}, list(OURS)
    for name in dict.fromkeys(options.against):
        descriptions[name], of_peer = processes.cases_of(name)
        cases += of_peer
    if options.out is not None:
        new_figure("tinyedge bench --out", 1, 1)  # what cannot be drawn shall not be measured first
        options.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "tinyedge": tinyedge.__version__,
        "device": default_backend().description,
        "host": platform.platform(),
        "against": descriptions,
    }
    print(
        f"tinyedge {tinyedge.__version__} on {found['device']}"
        + "".join(f"; {d}" for d in dict.fromkeys(descriptions.values()))
    )
    if chosen and options.minutes is not None:
        found["sustained"] = _sustained(chosen, options)
    elif chosen and options.startup:
        found["startup"] = _startup(chosen, options)
    elif chosen:
        kind = INFERENCE if options.inference else TRAINING
        if models:
            found[kind] = _workloads(models, kind, f"{kind} at batch 1", cases, options)
        if scripts:
            found["scripts"] = _workloads(scripts, TRAINING, "scripts, a step", cases, options)
    if options.ops:
        found["ops"] = _ops(options)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        print(f"\nwritten: {options.json}")
    return 0


def _table(rows: Sequence[Sequence[str]], left: Sequence[int], options: argparse.Namespace) -> str:
    if not options.markdown:
        return table(rows, left)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _workloads(
    chosen: Sequence[Workload | Script], kind: str, title: str, cases: Sequence[Case], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    timings: dict[str, dict[str, Timing]] = {}
    for item in chosen:
        timings[item.name] = processes.measure(item, kind, cases, options.rounds)
        said = ", ".join(f"{name} {_said(timing)} ms" for name, timing in timings[item.name].items())
        print(f"{item.name}: {said}", file=sys.stderr, flush=True)  # the tables come when all is measured
    steps = {item.name: _ready(item, kind) for item in chosen}
    profiles = {name: step.program.profile(PROFILE_REPEATS) for name, step in steps.items()}
    programs = {name: _about(step, profiles[name]) for name, step in steps.items()}
    columns = list(dict.fromkeys(case.name for case in cases))
    others = [name for name in columns if not name.startswith("tinyedge")]
    print(
        f"\n{title}, float32: median milliseconds of at least {options.rounds}, in {processes.PROCESSES} "
        "processes for each case, one after the other"
    )
    rows = [["", *(f"{name} ms" for name in columns), *(f"tinyedge / {name}" for name in others)]]
    ratios: dict[str, list[float]] = {other: [] for other in others}
    for name, found in timings.items():
        for other in others:
            if other in found:
                ratios[other].append(found["tinyedge"].median_ms / found[other].median_ms)
        times = [_said(found[column]) if column in found else "" for column in columns]
        rows.append([name, *times, *(f"{ratios[other][-1]:.2f}" if other in found else "" for other in others)])
    if others and len(timings) > 1:
        means = [f"{statistics.geometric_mean(ratios[other]):.2f}" if ratios[other] else "" for other in others]
        rows.append(["geometric mean", *("" for _ in columns), *means])
    print(_table(rows, (0,), options))
    print("\nthe compiled program")
    rows = [["", "launches", "kernels", "kernels ms", "MFLOP", "GFLOP/s", "peak", "saved for backward", "parameters"]]
    for name, about in programs.items():
        rows.append(
            [
                name, str(about["launches"]), str(about["kernels"]), f"{about['kernels_ms']:.3f}",
                f"{about['flops'] / 1e6:,.0f}",
                f"{about['flops'] / about['kernels_ms'] / 1e6:.1f}", memory_text(about["peak_bytes"]),
                memory_text(about["saved_bytes"]), memory_text(about["parameter_bytes"]),
            ]
        )  # fmt: skip
    print(_table(rows, (0,), options))
    if options.profile:
        for name, profile in profiles.items():
            print(f"\n{name}, {profile.by_kernel()}")
    if options.out is not None:
        path = options.out / f"{title.partition(' at ')[0].partition(',')[0].replace(' ', '-')}.png"
        draw_times(
            {name: medians_of(found) for name, found in timings.items()},
            f"{title} on {default_backend().description}",
            path,
        )
        print(f"\nwritten: {path}")
    return {
        name: {
            "median_ms": medians_of(found),
            "timings": {column: asdict(timing) for column, timing in found.items()},
            **programs[name],
        }
        for name, found in timings.items()
    }


def _said(timing: Timing) -> str:
    return f"{timing.median_ms:.3f}" + (f" ({timing.way})" if timing.way else "")


def _ready(item: Workload | Script, kind: str) -> Run:
    """A compiled run that was replayed."""
    step = Run(item, kind, True)
    for _ in range(3):  # the first makes an optimizer's state, so that the second is recorded too
        step()
    return step


def _about(step: Run, profile: Profile) -> dict[str, Any]:
    """What the program of a compiled run does, and the memory that it takes."""
    program = step.program
    return {
        "launches": profile.launches,
        "kernels": len(profile.rows),
        "kernels_ms": profile.launched_ns / 1e6,
        "flops": profile.flops,
        "bytes_moved": profile.bytes_moved,
        "peak_bytes": program.peak_bytes,
        "saved_bytes": sum(buffer.nbytes for buffer in buffers(program) if buffer.kind == SAVED),
        "parameter_bytes": sum(p.numel() * p.dtype.itemsize for p in step.parameters()),
    }


def _sustained(chosen: Sequence[Workload | Script], options: argparse.Namespace) -> dict[str, Any]:
    counted, missing = sustained.meters()
    print(f"\nthe compiled training step for {options.minutes:g} minutes each; it is warm when they begin")
    for text in missing:
        print(f"no energy: {text}")
    energies = [text for meter in counted for text in (f"{meter.name} W", "J a step")]
    rows = [["", "minute", "steps", "p50 ms", "p99 ms", *energies]]
    found = {}
    for item in chosen:
        found[item.name] = sustained.measure(item, options.minutes, counted)
        for at, minute in enumerate(found[item.name], 1):
            used = [(joules / minute.seconds, joules / minute.steps) for joules in minute.joules.values()]
            energy = [text for watts, each in used for text in (f"{watts:.1f}", f"{each:.3g}")]
            rows.append(
                [item.name, str(at), str(minute.steps), f"{minute.p50_ms:.3f}", f"{minute.p99_ms:.3f}", *energy]
            )
    print(_table(rows, (0,), options))
    return {"no energy": missing, **{name: [asdict(minute) for minute in all_] for name, all_ in found.items()}}


def _startup(chosen: Sequence[Workload | Script], options: argparse.Namespace) -> dict[str, Any]:
    print("\nmilliseconds from the start of a process to a compiled training step; cold: with empty caches")
    found = {item.name: startup.measure(item.name) for item in chosen}
    parts = list(next(iter(found.values()))["cold"])
    rows = [["", "", *parts]]
    for name, states in found.items():
        rows += [[name, state, *(f"{times[part]:.1f}" for part in parts)] for state, times in states.items()]
    print(_table(rows, (0, 1), options))
    return found


def _ops(options: argparse.Namespace) -> dict[str, Any]:
    backend = default_backend()
    ceilings = roofline.measure_ceilings(backend)
    print(
        f"\nops, float32, the kernels' own time; the device does {ceilings.gflops:,.0f} GFLOP/s (multiply-adds in "
        f"registers) and {ceilings.gbytes:,.1f} GB/s (copy); higher rates come from caches"
    )
    rates = [rate for case in ops.CASES for rate in ops.measure(case, options.rounds)]
    rows = [["", "", "us", "GFLOP/s", "GB/s", "of the roofline"]]
    for rate in rates:
        rows.append(
            [
                rate.label, rate.direction, f"{rate.elapsed_ns / 1e3:.1f}", f"{rate.gflops:.1f}",
                f"{rate.gbytes:.1f}", f"{100 * ceilings.reached(rate):.0f}%",
            ]
        )  # fmt: skip
    print(_table(rows, (0, 1), options))
    if options.out is not None:
        path = options.out / "roofline.png"
        roofline.draw(rates, ceilings, backend.description, path)
        print(f"\nwritten: {path}")
    return {"ceilings": asdict(ceilings), "rates": [asdict(rate) for rate in rates]}


BARS = {"tinyedge eager": "#9ecae1", "tinyedge": "#1b6ca8", "torch": "#e08214", "torch CUDA graph": "#8c510a"}


def draw_times(times: Mapping[str, Mapping[str, float]], title: str, path: Path) -> None:
    """Bars, a group for each workload; logarithmic, since the models are of very different sizes."""
    columns = list(dict.fromkeys(name for medians in times.values() for name in medians))
    figure = new_figure("tinyedge bench --out", 10.0, 1.6 + 0.26 * len(times) * (len(columns) + 1))
    axes = figure.subplots()
    height = 1 / (len(columns) + 1)
    for position, column in enumerate(columns):
        places = [group + (position - (len(columns) - 1) / 2) * height for group in range(len(times))]
        values = [medians[column] for medians in times.values()]
        bars = axes.barh(places, values, height * 0.92, label=column, color=BARS.get(column, "#5a6b7b"))
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(times)), list(times))
    axes.invert_yaxis()
    axes.set_xscale("log")
    values = [value for medians in times.values() for value in medians.values()]
    axes.set_xlim(min(values) / 3, max(values) * 2)
    axes.set_xlabel("milliseconds (shorter is better)")
    axes.set_title(title, loc="left")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=len(columns), frameon=False)
    figure.savefig(path, dpi=130)
