"""How much of a checkpoint a shard reads, and how long that takes."""

from pathlib import Path

from checkpoints import build_model, write_checkpoint
from peregrine_server.models.loading.safetensors_file import SafetensorsFile
from runners import load_runner


def test_a_shard_reports_the_bytes_that_it_read(tmp_path: Path) -> None:
    """They are those of every tensor in the file; the time is one that reading them can take."""
    path = write_checkpoint(tmp_path, build_model("7b"))
    stored = sum(info.num_bytes for info in SafetensorsFile(path / "model.safetensors").tensors.values())
    ready = load_runner(path).ready
    assert ready.read_bytes == stored
    assert 1e-4 < ready.load_seconds < 60
