"""The end of the line that says that a model does not fit: what would."""

from peregrine_router.hardware import GIB, Device
from peregrine_router.launch.devices import runs_on_cpu
from peregrine_router.launch.prepare import Prepared
from peregrine_router.planning.choices import choose
from peregrine_router.planning.devices import cpu
from peregrine_router.planning.models import model_at
from peregrine_router.planning.plan import Deployment
from peregrine_router.planning.report import place


def nearest_that_fits(prepared: Prepared, free_bytes: int) -> str:
    """The first of what `peregrine plan` lists for a model that does not fit so many bytes of a device. Empty if there
    is nothing, or if 0 bytes say that memory is not the reason."""
    if free_bytes <= 0:
        return ""
    choice = choose(deployment_of(prepared, free_bytes), [prepared.settings.quantize])
    if not choice.alternatives:
        return ""
    nearest = choice.alternatives[0].deployment
    is_elsewhere = nearest.device is not choice.plan.deployment.device
    return f"; what fits{f' on {place(nearest)}' if is_elsewhere else ''}: {nearest.command}"


def deployment_of(prepared: Prepared, free_bytes: int) -> Deployment:
    """The deployment that was to be served, on devices with so many bytes each."""
    is_on_cpu, settings = runs_on_cpu(prepared.settings), prepared.settings
    return Deployment(
        model=model_at(prepared.path, prepared.model_id, prepared.config),
        device=cpu(free_bytes) if is_on_cpu else Device(f"{free_bytes / GIB:.1f} GiB", "", 0, free_bytes / GIB, None),
        num_shards=prepared.num_shards,
        quantize=settings.quantize,
        kv_cache_dtype=settings.kv_cache_dtype,
        cpu_offload_gb=settings.cpu_offload_gb,
        max_total_tokens=prepared.max_total_tokens,
    )
