"""One rank of a group, run as a process: generates what its job asks for, as the shards of a server do.

A job (JSON, the only argument) names the rank, the group, the model and the requests. Every rank has a scheduler of its
own: ranks that agree on every token also agree on every step.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from peregrine_router.request import Request
from peregrine_server.protocol import SamplingParams
from runners import generated, load_runner, make_scheduler, run


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    requests = [
        Request(str(i), tuple(prompt), msgspec.convert(sampling, SamplingParams), count)
        for i, (prompt, sampling, count) in enumerate(job["requests"])
    ]
    runner = load_runner(Path(job["path"]), **job["config"])
    eos = frozenset(job["config"]["eos_token_ids"])
    sequences = run(runner, make_scheduler(num_blocks=384, max_batch_size=32, eos=eos), requests)
    json.dump([generated(sequence) for sequence in sequences], sys.stdout)


if __name__ == "__main__":
    main()
