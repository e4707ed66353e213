"""Digits learnt by clients that share no image: a SuperLink and SuperNodes on this machine, or a simulation.

    pip install "tinyedge[federated,cpu,demo]"
    python examples/federated_digits/run.py                            # 10 SuperNodes, 20 rounds
    pip install "flwr[simulation]"
    python examples/federated_digits/run.py --simulate --clients 100   # 100 clients in Flower's simulation engine

Each client has a random share of every class. After each round the server measures the joined model on digits that no
client has. For comparison: one model trained on all images, and each client's own trained on its images alone.
Only processes that this script started are stopped at its end, which comes after --minutes at the latest. A round of
10 SuperNodes takes about a quarter of a minute on two cores, most of it for Flower's processes to start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for(port: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.2)
    raise SystemExit(f"nothing listens on port {port} after {seconds:.0f} s")


def stop(processes: list[subprocess.Popen]) -> None:
    """End what was started here, each by its process group; a second Ctrl-C does not leave some of it running."""
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            alive = [process for process in reversed(processes) if process.poll() is None]
            for process in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
            end = time.monotonic() + 10
            for process in alive:  # they end side by side
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, end - time.monotonic()))
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def deployed(clients: int, rounds: int, folder: Path, app: Path = HERE) -> dict:
    """A SuperLink and a SuperNode for each client, on loopback; what the server reported."""
    report, home, port = folder / "report.json", folder / "flwr", free_port()
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "deploy"\n\n[superlink.deploy]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    # The package may be used from a checkout; kernels are built once, and found by every later process.
    path = os.pathsep.join(filter(None, [*sys.path[1:2], os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {
        "FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1", "FEDERATED_DIGITS_REPORT": str(report), "PYTHONPATH": path,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    if env.pop("PYTHONDONTWRITEBYTECODE", ""):  # each message starts a process, which would compile Flower and tinyedge
        env["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    started: list[subprocess.Popen] = []

    def start(name: str, *command: str) -> None:
        log = (folder / f"{name}.log").open("w")
        started.append(
            subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder)
        )

    try:
        start(
            "superlink", "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port),
            "--disable-runtime-dependency-installation",
        )  # fmt: skip
        wait_for(port)
        for k in range(clients):
            start(
                f"supernode{k}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
                "--host", "127.0.0.1", "--port", str(free_port()),
                "--node-config", f"partition-id={k} num-partitions={clients}",
            )  # fmt: skip
        config = f"num-server-rounds={rounds} clients={clients}"
        log = (folder / "run.log").open("w")
        command = ["flwr", "run", str(app), "deploy", "--stream", "--run-config", config]
        run = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        started.append(run)
        status = run.wait()
    finally:
        stop(started)
    if not report.exists():
        tail = "\n".join((folder / "run.log").read_text().splitlines()[-30:])
        raise SystemExit(f"the run ended with status {status} and without a report; see {folder}\n{tail}")
    return json.loads(report.read_text())


def simulated(clients: int, rounds: int, folder: Path) -> dict:
    """The same apps in Flower's simulation engine."""
    os.environ.update(FLWR_HOME=str(folder), FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
    import federated_digits.app as app
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    import tinyedge as te

    found: dict = {}

    def keep(model: te.nn.Module, report: te.federated.Report) -> None:
        found.update(vars(report))

    server = te.federated.server_app(
        app.make_model, rounds=rounds, precision=app.PRECISION, timeout=600,
        strategy=lambda config: FedAvg(fraction_train=0.2, fraction_evaluate=0.0, min_available_nodes=clients),
        evaluate_fn=lambda model: {"accuracy": app.accuracy(model)}, done=keep,
    )  # fmt: skip
    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}}
    run_simulation(server, app.client, num_supernodes=clients, backend_config=resources)
    return found


def alone(samples: list, epochs: int) -> float:
    """The accuracy of a model that was trained on these samples, by the clients' own recipe."""
    import federated_digits.app as app
    import numpy as np

    import tinyedge as te

    te.manual_seed(0)
    model = app.make_model()
    optimizer = app.optimizer_fn(list(model.parameters()))

    @te.compile
    def step(x: te.Tensor, y: te.Tensor) -> te.Tensor:
        value = app.loss(model, x, y)
        value.backward()
        return value

    random = np.random.default_rng(0)
    for _ in range(epochs):
        for k in random.permutation(len(samples)):
            step(*samples[k])
            optimizer.step()
    optimizer.flush()
    return app.accuracy(model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--simulate", action="store_true", help="a fifth of the clients a round, in Flower's engine")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--minutes", type=int, default=60, help="after which the run is ended; 60")
    parser.add_argument("--logs", type=Path, help="a new folder that stays, with the log of each process")
    given = parser.parse_args()
    if min(given.clients, given.rounds, given.minutes) < 1:
        parser.error("--clients, --rounds and --minutes are 1 or more")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that what was started here is stopped
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done after {given.minutes} minutes: see --minutes"))
    signal.alarm(60 * given.minutes)
    if given.logs is not None:
        given.logs.mkdir(parents=True)
    folder = Path(tempfile.mkdtemp()) if given.logs is None else given.logs.resolve()
    began = time.monotonic()
    report = (simulated if given.simulate else deployed)(given.clients, given.rounds, folder)
    seconds = time.monotonic() - began
    signal.alarm(0)
    if given.logs is None:  # after a failure it stays, as its message says where the logs are
        shutil.rmtree(folder, ignore_errors=True)
    import federated_digits.app as app
    import numpy as np

    sent = [down + up for down, up in zip(report["bytes_down"], report["bytes_up"])]
    full = [(asked + used) * report["full_bytes"] for asked, used in zip(report["asked"], report["answered"])]
    print(f"{'round':>5} {'accuracy':>9} {'clients':>8} {'bytes':>10} {'of full weights':>16}")
    for number, metrics in report["metrics"].items():
        k = int(number) - 1
        parts = "" if k < 0 else f" {report['answered'][k]:8} {sent[k]:10,} {sent[k] / max(full[k], 1):16.1%}"
        print(f"{number:>5} {metrics['accuracy']:9.1%}{parts}")
    print(f"{seconds / given.rounds:.1f} s a round; updates refused, or not there in time: {len(report['refused'])}")
    if not given.no_baselines:
        shares = app.shares(given.clients)
        print(f"central, all images:     {alone(app.samples(np.concatenate(shares)), app.EPOCHS * given.rounds):.1%}")
        own = [alone(app.samples(share), app.EPOCHS * given.rounds) for share in shares[:10]]
        print(f"each client alone:       {np.mean(own):.1%} ({min(own):.1%} to {max(own):.1%})")


if __name__ == "__main__":
    main()
