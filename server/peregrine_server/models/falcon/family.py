"""Falcon as a model family: its configurations and its loading. Imports no torch until a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peregrine_server.models.falcon.config import FalconConfig
from peregrine_server.models.falcon.footprint import footprint
from peregrine_server.models.falcon.published import PUBLISHED
from peregrine_server.models.interface import Footprint, Layout, Model, ModelContext, SourceCheckpoint

if TYPE_CHECKING:
    from peregrine_server.models.loading.weights import Progress


class FalconFamily:
    """falcon-rw, falcon-7b, 40b, 180B, 11B and models fine-tuned from them."""

    def config(self, hf: Mapping[str, Any]) -> FalconConfig:
        return FalconConfig.from_hf(hf)

    @property
    def published(self) -> Mapping[str, Mapping[str, Any]]:
        return PUBLISHED

    def footprint(self, config: FalconConfig, layout: Layout) -> Footprint:
        return footprint(config, layout)

    def open(self, path: Path, config: FalconConfig) -> AbstractContextManager[SourceCheckpoint]:
        from peregrine_server.models.falcon.load import open_falcon

        return open_falcon(path, config)

    def load(self, path: Path, config: FalconConfig, context: ModelContext, progress: Progress | None) -> Model:
        from peregrine_server.models.falcon.load import load_falcon

        return load_falcon(path, config, context, progress)


FAMILY = FalconFamily()
