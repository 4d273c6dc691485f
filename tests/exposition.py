"""Reads what GET /metrics answers."""


def parse_metrics(text: str) -> dict[str, float]:
    """The value of every series by its name and labels, as `tgi_request_failure{err="timeout"}`."""
    series = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in series}
