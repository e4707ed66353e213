"""A process that builds programs for another one: ``build_process.py FOLDER``. As a script it needs only pyopencl.

In: a folder with ``device.json``, the device's identity, and ``N.json``, text and build options of program N. Out: for
each program that it takes a file ``N.binary``, complete or not there. Who makes the file ``N.taken`` first builds it.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def free_programs(folder: Path) -> Iterator[int]:
    """The numbers of programs that nobody has taken, each of which is taken by being yielded."""
    for number in range(len(list(folder.glob("*.json"))) - 1):
        try:
            os.close(os.open(folder / f"{number}.taken", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            continue
        yield number


def build(cl: Any, context: Any, folder: Path, number: int) -> None:
    """Build program ``number``; leave no file if that fails, since its owner will see the driver's message."""
    wanted = json.loads((folder / f"{number}.json").read_text(encoding="utf-8"))
    try:
        program = cl.Program(context, wanted["text"]).build(wanted["options"], cache_dir=False)
        binary = program.get_info(cl.program_info.BINARIES)[0]
    except (cl.Error, MemoryError):
        return
    part = folder / f"{number}.part"
    part.write_bytes(binary)
    part.rename(folder / f"{number}.binary")


def main(folder: Path, owner: int) -> None:
    import pyopencl as cl

    probe = runpy.run_path(str(Path(__file__).with_name("probe.py")))  # the package takes a second to import
    identity = tuple(json.loads((folder / "device.json").read_text(encoding="utf-8")))
    device = next(device for device in probe["all_devices"](cl) if probe["identity_of"](cl, device) == identity)
    context = cl.Context([device])
    for number in free_programs(folder):
        if os.getppid() != owner:  # nobody waits for it any more
            break
        build(cl, context, folder, number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)  # a driver need not tidy up: what was asked for is written
