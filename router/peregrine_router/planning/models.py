"""The model that is planned: known by name, or in a folder. Nothing is downloaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from peregrine_router.launch.gguf_names import SUFFIX
from peregrine_router.launch.model_files import DEMO_MODEL_ID, demo_path, local_folder
from peregrine_server.models.formats.interface import DENSE, WeightFormat, WeightKernels
from peregrine_server.models.interface import Footprint, Layout, ModelConfig
from peregrine_server.models.registry import family_of, footprint, load_config, load_format, published_models

ALIASES = {"falcon2": "tiiuae/falcon-11B", "falcon2-11b": "tiiuae/falcon-11B"}
"""Names in use -> those of the hub."""


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """A model's shape, without its weights."""

    name: str
    """As --model-id takes it."""
    config: ModelConfig
    footprint: Callable[[Layout], Footprint]
    stored: Callable[[str | None, WeightKernels], WeightFormat] | None = None
    """The format of weights that are quantized in the checkpoint, by what --quantize says, which it checks; None: they
    are not, and may have any."""


def find_model(name: str) -> PlannedModel:
    """The model of a folder, or of a name with or without its owner. Raises ValueError with one line."""
    folder = demo_path() if name == DEMO_MODEL_ID else Path(name).expanduser()
    if folder.is_dir() or (folder.suffix == SUFFIX and folder.is_file()):
        folder = local_folder(folder)
        return model_at(folder, name, load_config(folder))
    if folder.suffix == SUFFIX:
        raise ValueError(f"there is no file {name}, and a plan downloads none: give the path of one that is here")
    models = published_models()
    known = {short_name(full).lower(): full for full in models} | {full.lower(): full for full in models} | ALIASES
    if name.lower() not in known:
        names = ", ".join(map(short_name, models))
        raise ValueError(
            f"{name} is neither a folder nor a model that is known without a download: give the folder, or one of "
            f"{names}"
        )
    full = known[name.lower()]
    family = family_of(models[full])
    config = family.config(models[full])
    return PlannedModel(full, config, partial(family.footprint, config))


def model_at(folder: Path, name: str, config: ModelConfig) -> PlannedModel:
    """The model of a folder, under `name`."""
    is_dense = load_format(folder, None).name == DENSE
    stored = None if is_dense else partial(load_format, folder)
    return PlannedModel(name, config, partial(footprint, folder, config), stored)


def short_name(name: str) -> str:
    """A name of the hub without its owner."""
    return name.rpartition("/")[2]
