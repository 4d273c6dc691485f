"""A server whose table of sampling parameters has one more row. Prints what becomes of that parameter as JSON.

Run as a process of its own, because the schemas of the APIs are made from the table when they are imported.
"""

import json
from typing import Any
from unittest.mock import patch

import msgspec

from peregrine_router.admission import parameters
from peregrine_router.admission.ranges import within
from peregrine_router.request import SamplingParams

TOY = parameters.Parameter("toy", parameters.Float, off=0.0, doc="A toy.", example=0.5, range=within(0.0, 1.0))


class ToySamplingParams(SamplingParams, frozen=True, array_like=True, kw_only=True):
    """The shards' message with a field for the new row."""

    toy: float = 0.0


def main() -> None:
    """Sends the parameter to TGI's and OpenAI's routes: in its range, out of its range, left out."""
    parameters.PARAMETERS = (*parameters.PARAMETERS, TOY)
    from fakes import FakeEngine, make_tokenizer, serve

    engine = FakeEngine(make_tokenizer())
    with patch("peregrine_router.admission.validator.SamplingParams", ToySamplingParams), serve(engine) as server:
        bodies: list[tuple[str, dict[str, Any]]] = [
            ("/generate", {"inputs": "the", "parameters": {"toy": 0.25}}),
            ("/generate", {"inputs": "the", "parameters": {"toy": 2.0}}),
            ("/generate", {"inputs": "the", "parameters": {}}),
            ("/v1/completions", {"prompt": "the", "toy": 0.5}),
            ("/v1/completions", {"prompt": "the", "toy": -1.0}),
        ]
        answers = [server.client.post(path, json=body) for path, body in bodies]
        schemas = server.client.get("/openapi.json").json()["components"]["schemas"]
    found = {
        "statuses": [answer.status_code for answer in answers],
        "refusal": answers[1].json()["error"],
        "sampled": [msgspec.structs.asdict(request.sampling)["toy"] for request in engine.requests],
        "documented": [name for name, schema in sorted(schemas.items()) if "toy" in schema.get("properties", {})],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
