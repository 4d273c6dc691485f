"""`transformers.generate`: one static batch, padded on the left, as long as its longest answer."""

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationMixin, StoppingCriteria, StoppingCriteriaList

PAD_ID = 11


class Clock(StoppingCriteria):
    """A stopping criterion that never stops; records the time of each token."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        self.times.append(time.perf_counter() - self.start)
        return torch.zeros(len(input_ids), dtype=torch.bool)


def main() -> None:
    """Arguments: model folder, dtype, threads."""
    torch.set_num_threads(int(sys.argv[3]))
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=sys.argv[2])
    model.train(False)
    print("> ready", flush=True)
    for line in sys.stdin:
        print("> " + json.dumps(run(model, json.loads(line))), flush=True)


@torch.inference_mode()
def run(model: GenerationMixin, requests: list[dict[str, Any]]) -> list[list[float]]:
    """Seconds of each request's tokens, cut to the number that it asked for."""
    clock = Clock()
    longest = max(len(request["prompt"]) for request in requests)
    padding = [longest - len(request["prompt"]) for request in requests]
    ids = torch.tensor([[PAD_ID] * pad + request["prompt"] for pad, request in zip(padding, requests, strict=True)])
    mask = torch.tensor([[0] * pad + [1] * (longest - pad) for pad in padding])
    count = max(request["max_new_tokens"] for request in requests)
    lengths = {"min_new_tokens": count, "max_new_tokens": count}
    stop = StoppingCriteriaList([clock])
    model.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=PAD_ID, stopping_criteria=stop, **lengths)
    return [clock.times[: request["max_new_tokens"]] for request in requests]


if __name__ == "__main__":
    main()
