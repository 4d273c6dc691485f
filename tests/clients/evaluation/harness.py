"""lm_eval on four tasks made of text that the demo model was not trained on; nothing is downloaded."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read at import. One thread: several wait for each other by spinning, a hundred times longer where cores are busy.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

import lm_eval
from lm_eval.tasks import TaskManager

from clients.server import KEY, ROOT

os.environ["OPENAI_API_KEY"] = KEY
TASKS = ("continuation", "paragraphs", "next_words")
CHARACTERS = {
    "context": "The naïve café-owner said: «",
    "choices": [" ☕ 5 €?», he wrote", " bien sûr…", " 你好", " \U0001f469\u200d\U0001f680"],
    "target": 0,
}
"""An item whose tokens are parts of characters."""

Scores = dict[str, list[Any]]
"""A task's responses, in the order of its items: (log-likelihood, whether greedy) of each choice, a log-likelihood, or
a text."""


@dataclass(frozen=True)
class Harness:
    """lm_eval in a folder that holds the tasks' data, which is the process's working directory."""

    folder: Path

    def run(self, kind: str, *tasks: str, batch_size: int = 1, is_chat: bool = False, **arguments: Any) -> Scores:
        """The responses of one of lm_eval's kinds of model, made with `arguments`."""
        found = lm_eval.simple_evaluate(
            model=kind,
            model_args={name: str(value) if isinstance(value, Path) else value for name, value in arguments.items()},
            tasks=list(tasks or TASKS),
            task_manager=TaskManager(include_path=str(Path(__file__).parent / "tasks"), include_defaults=False),
            batch_size=batch_size,
            device="cpu",
            apply_chat_template=is_chat,
            log_samples=True,
            bootstrap_iters=0,
        )
        return {task: list(map(_responses, sorted(samples, key=_number))) for task, samples in found["samples"].items()}


def write_data(folder: Path) -> None:
    """The tasks' items, from the paragraphs of scripts/demo/heldout.txt."""
    text = (ROOT / "scripts/demo/heldout.txt").read_text()
    words = [paragraph.split(" ") for paragraph in text.split("\n\n") if len(paragraph.split(" ")) > 60]
    _write(folder / "continuation.jsonl", [*(_item(number, words) for number in range(8)), CHARACTERS])
    _write(folder / "paragraphs.jsonl", [{"text": " ".join(each)} for each in words[:4]])
    _write(folder / "documents.jsonl", [{"text": text[:10_000]}])


def _item(number: int, words: list[list[str]]) -> dict[str, Any]:
    """A beginning of a paragraph; its own next words and those of three others, which are of different lengths."""
    choices = [" " + " ".join(words[number + other][40 : 44 + other]) for other in range(4)]
    return {"context": " ".join(words[number][:40]), "choices": choices, "target": 0}


def _write(file: Path, items: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(item) + "\n" for item in items))


def _number(sample: dict[str, Any]) -> int:
    return int(sample["doc_id"])


def _responses(sample: dict[str, Any]) -> list[Any]:
    return [responses[0] for responses in sample["resps"]]
