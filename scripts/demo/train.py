"""Train the demo Falcon on a CPU, in a given number of minutes.

`python scripts/demo/train.py --minutes 60` trains from scratch; `--init FOLDER --rate 1.5e-3` goes on from a model
folder. It needs janeaustenr (see corpus.py). It can be killed and run again with the same `--work` folder: it goes on
from its last checkpoint.
"""

import argparse
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from corpus import as_text, load_corpus
from data import IGNORED, Batch, Document, batches, encode_chapter
from falcon import check_forward, falcon_config, loss
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import FalconForCausalLM
from vocabulary import END_OF_TEXT_ID, train_tokenizer

LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.3  # a text of 0.9 million tokens read five times or more: above the usual 0.1
DROPOUT = 0.05
TOKENS_PER_BATCH = 2048
STAGES = ((0.0, 512), (0.8, 1024), (0.92, 2048))
"""(share of the time that has passed, window length): short windows teach most, long ones come last."""

LONGEST_STEP_S = 20.0
"""Maximum seconds that a step counts: a longer one was a stopped process."""


@dataclass
class Clock:
    """How far training is, from 0 to 1, in time spent training; pauses count up to `slack` minutes."""

    minutes: float
    slack: float
    trained_s: float = 0.0
    started: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def tick(self) -> float:
        """Count the time since the last tick and return the progress."""
        now = time.monotonic()
        self.trained_s += min(now - self.last, LONGEST_STEP_S)
        self.last = now
        overrun = (now - self.started) / (60 * (self.minutes + self.slack))
        return max(self.trained_s / (60 * self.minutes), overrun)


@dataclass
class Run:
    """The contents of a checkpoint."""

    model: FalconForCausalLM
    optimizers: list[torch.optim.Optimizer]
    clock: Clock
    step: int = 0
    tokens: int = 0
    best: float = math.inf

    def save(self, path: Path) -> None:
        """Write everything needed to continue; a kill half-way leaves the earlier file whole."""
        state: dict[str, Any] = {"step": self.step, "tokens": self.tokens, "best": self.best}
        state |= {"trained_s": self.clock.trained_s, "model": self.model.state_dict()}
        state["optimizers"] = [optimizer.state_dict() for optimizer in self.optimizers]
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    def restore(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self.tokens, self.best = state["step"], state["tokens"], state["best"]
        self.clock.trained_s = state["trained_s"]


def make_optimizers(model: FalconForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices; AdamW for embeddings and LayerNorms, which are not decayed."""
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embeddings" in name]
    return [
        torch.optim.Muon(matrices, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0),
    ]


def learning_rate(peak: float, progress: float) -> float:
    """Warm up over 1 % of the time, hold until 30 %, then straight to zero."""
    return peak * min(1.0, progress / 0.01, max(0.0, (1 - progress) / 0.7))


def gradients(model: FalconForCausalLM, part: Batch, share: float) -> tuple[float, tuple[Tensor, ...]]:
    """A part's loss and its gradients, both times its share of the step's labels."""
    value = loss(model, *part, DROPOUT) * share
    return value.item(), torch.autograd.grad(value, list(model.parameters()))


def train_step(run: Run, parts: list[Batch], rate: float, pool: ThreadPoolExecutor) -> float:
    """One update from batches of several lengths; returns the loss, the mean over all their labels.

    Each thread computes a part by itself: on a busy machine, threads that share every product wait for each other.
    """
    counts = [int((labels != IGNORED).sum()) for _, labels in parts]
    shares = [count / sum(counts) for count in counts]
    computed = list(pool.map(gradients, [run.model] * len(parts), parts, shares))
    for parameter, *of_parts in zip(run.model.parameters(), *(grads for _, grads in computed), strict=True):
        parameter.grad = torch.stack(of_parts).sum(0)
    nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
    for optimizer in run.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    run.step += 1
    run.tokens += sum(ids.numel() for ids, _ in parts)
    return sum(value for value, _ in computed)


@torch.no_grad()
def validate(model: FalconForCausalLM, ids: Tensor, num_bytes: int) -> float:
    """Bits per byte in windows of 512 without context: a little above what a sliding window gives."""
    nats = 0.0
    for begin in range(0, len(ids) - 1, 512):
        window = ids[begin : begin + 513][None]
        nats += loss(model, window[:, :-1], window[:, 1:], 0.0).item() * (window.shape[1] - 1)
    return nats / math.log(2) / num_bytes


@dataclass
class Material:
    """Everything that training reads: the tokenizer, the encoded chapters, and the validation text."""

    tokenizer: Tokenizer
    chapters: list[Document]
    validation: Tensor
    num_bytes: int


def prepare(work: Path, init: Path | None) -> Material:
    """The novels, in the tokens of the model to start from or of a new tokenizer, which is kept in the work folder."""
    corpus = load_corpus()
    tokenizer = Tokenizer.from_file(str(init / "tokenizer.json")) if init else train_tokenizer(corpus.train)
    tokenizer.save(str(work / "tokenizer.json"))
    chapters = [encode_chapter(tokenizer, chapter) for chapter in corpus.train]
    text = as_text(corpus.validation)
    validation = torch.tensor([END_OF_TEXT_ID, *tokenizer.encode(text).ids])
    print(f"novels {sum(len(c[0]) for c in chapters):,} tokens")
    return Material(tokenizer, chapters, validation, len(text.encode()))


def train(run: Run, material: Material, args: argparse.Namespace) -> None:
    """The loop: until the time is up, with a checkpoint every `every` steps and the best one kept apart."""
    rng = np.random.default_rng(run.step)
    lengths = {length for _, length in STAGES}
    streams = {each: batches(material.chapters, material.tokenizer, each, TOKENS_PER_BATCH, rng) for each in lengths}
    smooth, progress = math.nan, run.clock.tick()
    pool = ThreadPoolExecutor(args.threads)
    while progress < 1:
        length = max(length for begin, length in STAGES if progress >= begin)
        value = train_step(run, next(streams[length]), learning_rate(args.rate, progress), pool)
        smooth = value if math.isnan(smooth) else 0.98 * smooth + 0.02 * value
        progress = run.clock.tick()
        if run.step % 20 == 0:
            speed = run.tokens / run.clock.trained_s
            print(f"{progress:6.1%} step {run.step} length {length} loss {smooth:.3f}, {speed:.0f} tok/s", flush=True)
        if run.step % args.every == 0 or progress >= 1:
            keep(run, material, args.work, progress)


def keep(run: Run, material: Material, work: Path, progress: float) -> None:
    """Write the checkpoint, and another when it is the best on the validation text."""
    bits = validate(run.model, material.validation, material.num_bytes)
    print(f"{progress:6.1%} step {run.step} validation {bits:.4f} bits per byte", flush=True)
    if bits < run.best:
        run.best = bits
        run.save(work / "best.pt")
    run.save(work / "last.pt")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=75.0, help="time to train")
    parser.add_argument("--slack", type=float, default=10.0, help="minutes that pauses may add")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="highest learning rate")
    parser.add_argument("--init", type=Path, help="model folder to start from, its tokenizer too; none: from scratch")
    parser.add_argument("--threads", type=int, default=2, help="windows computed side by side")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--work", type=Path, default=Path("build/demo"), help="folder of the checkpoints")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = FalconForCausalLM(falcon_config())
    if args.init:
        model.load_state_dict(FalconForCausalLM.from_pretrained(args.init, dtype=torch.float32).state_dict())
    check_forward(model)
    run = Run(model, make_optimizers(model), Clock(args.minutes, args.slack))
    if (args.work / "last.pt").exists():
        run.restore(args.work / "last.pt")
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, from step {run.step}")
    train(run, prepare(args.work, args.init), args)


if __name__ == "__main__":
    main()
