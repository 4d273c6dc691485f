"""Falcon as a model family: its configurations and its loading. Imports no torch until a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import weight_bytes
from peregrine_server.models.formats.interface import WeightFormat
from peregrine_server.models.interface import Model, ModelContext

if TYPE_CHECKING:
    from peregrine_server.models.loading.weights import Progress


class FalconFamily:
    """falcon-rw, falcon-7b, 40b, 180B, 11B and models fine-tuned from them."""

    def config(self, hf: Mapping[str, Any]) -> FalconConfig:
        return FalconConfig.from_hf(hf)

    def weight_bytes(self, config: FalconConfig, num_ranks: int, dtype: str, format: WeightFormat) -> int:
        return weight_bytes(config, num_ranks, dtype, format)

    def load(self, path: Path, config: FalconConfig, context: ModelContext, progress: Progress | None) -> Model:
        from peregrine_server.models.falcon.load import load_falcon

        return load_falcon(path, config, context, progress)


FAMILY = FalconFamily()
