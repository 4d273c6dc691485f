"""From logits to tokens: logits processors, the draw, log-probabilities, the copy to the host.

The order of the processors is that of `registry.PROCESSORS`.
"""
