"""Deployments to plan."""

from typing import Any

from peregrine_router.planning.devices import find_device
from peregrine_router.planning.models import find_model
from peregrine_router.planning.plan import Deployment


def deployment(model: str, device: str, **changes: Any) -> Deployment:
    """A model on a device, with requests as long as it was trained for."""
    found = find_model(model)
    given = {"max_total_tokens": found.config.max_positions, **changes}
    return Deployment(model=found, device=find_device(device), **given)
