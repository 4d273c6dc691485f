"""Asks a running server what newcomers ask first, at its default parameters, and prints a table for the model card.

`python scripts/demo/first_messages.py --url http://127.0.0.1:3000` asks the messages of first_messages.txt, each
with three seeds; none of them was trained on. The verdicts are a reader's: `--verdicts FILE` has a line for every
answer that is not good, "number.seed: why".
"""

import argparse
import json
import urllib.request
from collections import Counter
from pathlib import Path

from dialogues.make import read_messages

SEEDS = (1, 2, 3)


def ask(url: str, message: str, seed: int) -> str:
    """The answer to a chat of one message, with nothing but the seed named."""
    body = {"model": "falcon", "messages": [{"role": "user", "content": message}], "seed": seed}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        content: str = json.load(response)["choices"][0]["message"]["content"]
    return content


def read_verdicts(path: Path | None) -> dict[str, str]:
    """The reasons of the answers that are not good, by "number.seed"."""
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {place.strip(): reason.strip() for place, reason in pairs}


def main() -> None:
    """Ask, print one row for every answer, then the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--messages", default="first_messages.txt", help="a list beside this script")
    parser.add_argument("--verdicts", type=Path)
    args = parser.parse_args()
    verdicts = read_verdicts(args.verdicts)
    counts: Counter[str] = Counter()
    print("| | kind | message | seed | answer | verdict |\n|---|---|---|---|---|---|")
    for number, (kind, message) in enumerate(read_messages(args.messages), start=1):
        for seed in SEEDS:
            answer = " ".join(ask(args.url, message, seed).split()).replace("|", "\\|")
            reason = verdicts.get(f"{number}.{seed}")
            counts["bad" if reason else "good"] += 1
            verdict = f"bad: {reason}" if reason else "good"
            print(f"| {number} | {kind} | {message} | {seed} | {answer} | {verdict} |")
    print(f"\n{counts['good']} of {counts.total()} good")


if __name__ == "__main__":
    main()
