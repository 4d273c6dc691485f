"""Options: model, devices and files."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import option
from peregrine_server.models.formats.registry import FORMATS, STORED, format_names, weight_format

Dtype = Literal["float32", "bfloat16", "float16"]
KVCacheDtype = Literal["fp8_e4m3fn", "int8"]
Device = Literal["cpu", "cuda"]

LAUNCHER_FORMATS = {"bitsandbytes": "int8", "eetq": "int8", "bitsandbytes-nf4": "nf4"}
"""text-generation-launcher's names of a weight format -> ours."""


MAX_OFFLOAD_GB = 1024
"""GiB of each GPU's weights, more than any Falcon has."""


def _our_name(quantize: Any) -> Any:
    return LAUNCHER_FORMATS.get(quantize, quantize)


class ModelOptions(BaseSettings):
    """Model, devices and files."""

    model_id: str | None = option(
        None,
        "MODEL_ID",
        "Model of the Hugging Face Hub, or a local folder; or a GGUF file, of the Hub as OWNER/NAME/FILE.gguf. Not "
        "set: the demo model.",
        metavar="MODEL",
        min_length=1,
    )
    revision: str | None = option(
        None, "REVISION", "Commit, branch or tag of the model on the Hub.", metavar="REVISION", min_length=1
    )
    num_shard: int | None = option(
        None,
        "NUM_SHARD",
        "Tensor parallel size: GPUs, or CPU processes, that the model is split over. Any number works. Not set: the "
        "visible GPUs; 1 on a CPU.",
    )
    dtype: Dtype | None = option(
        None,
        "DTYPE",
        "Data type of weights and activations. Not set: bfloat16 where the device computes in it, else float32.",
    )
    quantize: Annotated[str | None, BeforeValidator(_our_name)] = option(
        None,
        "QUANTIZE",
        "Weight format, to which weights are rounded as they are loaded: int8 or fp8, 8 bits, a scale for each row; "
        "fp8-w8a8, the inputs of linears too: faster prompts on GPUs of compute capability 8.9 and later; "
        "int4 or nf4, 4 bits with a scale for every 64 weights of a row, and an output head of 8 bits. bitsandbytes "
        "and eetq are other names of int8, bitsandbytes-nf4 of nf4. Weights that are quantized in the checkpoint are "
        "loaded as they are: leave it out, or name what they are (" + ", ".join(STORED) + ").",
        metavar="{" + ",".join(FORMATS) + ",...}",
    )
    kv_cache_dtype: KVCacheDtype | None = option(
        None, "KV_CACHE_DTYPE", "8-bit KV cache, in half the memory. Not set: as dtype."
    )
    device: Device | None = option(None, "DEVICE", "Device of the model. Not set: cuda if there is a GPU, else cpu.")
    cuda_memory_fraction: float = option(
        1.0, "CUDA_MEMORY_FRACTION", "Part of each GPU's memory that a shard may use.", metavar="FRACTION", gt=0, le=1
    )
    cpu_offload_gb: float = option(
        0.0,
        "CPU_OFFLOAD_GB",
        "GiB that the weights take less of each GPU: so many layers stay in the host's memory, and every step copies "
        "them. Much slower: for models that fit in no other way.",
        metavar="GIB",
        ge=0,
        le=MAX_OFFLOAD_GB,
    )
    tokenizer_config_path: str | None = option(
        None,
        "TOKENIZER_CONFIG_PATH",
        "A tokenizer_config.json whose chat template is used instead of the model's.",
        metavar="FILE",
        min_length=1,
    )
    generation_config: str | None = option(
        None,
        "GENERATION_CONFIG",
        "Folder of the generation_config.json whose sampling parameters are the defaults of OpenAI's routes; vllm: no "
        "defaults. Not set: the model's folder.",
        metavar="{vllm,FOLDER}",
        min_length=1,
    )
    override_generation_config: str | None = option(
        None,
        "OVERRIDE_GENERATION_CONFIG",
        'Defaults that replace those of the file, as in {"temperature": 0.5}.',
        metavar="JSON",
        min_length=1,
    )
    rope_scaling: Literal["linear", "dynamic"] | None = option(
        None,
        "ROPE_SCALING",
        "Kind of scaling of rotary positions, in place of what config.json says. Not set, with a factor: linear.",
    )
    rope_factor: float | None = option(
        None, "ROPE_FACTOR", "Times the trained length that it reaches. Not set, with a scaling: 1.", ge=1
    )
    huggingface_hub_cache: str | None = option(
        None,
        "HUGGINGFACE_HUB_CACHE",
        "Folder of downloaded models. Not set: the default of huggingface_hub.",
        metavar="FOLDER",
    )


def quantize_contradictions(name: str | None, dtype: str | None) -> Iterator[tuple[bool, str]]:
    """(whether it is wrong, why) of a weight format and what it may not be combined with."""
    if name is None or name in STORED:
        return
    names = format_names()
    known = ", ".join((*names, *STORED))
    yield name not in names, f"--quantize (or QUANTIZE): {name} is not known, choose one of {known}"
    computed = weight_format(name).compute_dtype if name in names else None
    is_other = computed is not None and dtype not in (None, computed)
    yield is_other, f"--quantize {name} computes in {computed}: leave --dtype {dtype} out"
