"""Loads the model folders that are named on its input, one a line, and answers each with a line of JSON.

{"ok": tokens of a greedy request} or {"error": the one line that the operator reads}. Anything else is a crash.
"""

import json
import resource
import sys
from pathlib import Path

import torch

from peregrine_router.admission.grammar_checker import GrammarChecker
from peregrine_router.launch.model_files import check_files
from peregrine_router.request import Request, SamplingParams
from peregrine_router.text.chat_template import Chat
from peregrine_router.text.tokenizer import Tokenizer
from peregrine_server.models.registry import load_config
from runners import generated, load_runner, make_scheduler, run

MEMORY_BYTES = 1 << 30
"""Address space that a load may take: the folders hold a megabyte."""


def load(path: Path) -> list[int]:
    """Loads a folder as the router and a shard do; the tokens of a short request."""
    check_files(path)
    config = load_config(path)
    tokenizer = Tokenizer.load(path, config.vocab_size)
    Chat.load(path, "model", tokenizer, None)
    GrammarChecker.load(path, config.vocab_size, tokenizer.eos_token_ids)
    ends = tuple(sorted(tokenizer.eos_token_ids))
    runner = load_runner(path, eos_token_ids=ends, max_total_tokens=32, max_batch_total_tokens=64, max_batch_size=2)
    request = Request("", (1, 2, 3), SamplingParams(min_tokens=2, end_token_ids=ends), 4)
    scheduler = make_scheduler(8, max_batch_size=2)
    (sequence,) = run(runner, scheduler, [request])
    tokenizer.decode(generated(sequence))
    return generated(sequence)


def main() -> None:
    """Answers until the input ends."""
    torch.zeros(8, 8) @ torch.zeros(8, 8)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES,) * 2)
    for line in sys.stdin:
        try:
            answer: dict[str, object] = {"ok": load(Path(line.rstrip("\n")))}
        except (ValueError, OSError) as error:
            answer = {"error": str(error)}
        except AssertionError:
            answer = {"error": "its logits are not finite"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
