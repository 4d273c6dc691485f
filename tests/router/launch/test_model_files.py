"""From a model id to a folder."""

from pathlib import Path

import pytest

from peregrine_router.launch.model_files import DEMO_MODEL_ID, ModelNotFound, demo_path, resolve_model


def test_the_demo_model_is_in_the_package() -> None:
    """Without a model id, or by its own, it is found and complete."""
    for model_id in (None, DEMO_MODEL_ID):
        assert resolve_model(model_id, None, None) == demo_path()
    assert (demo_path() / "tokenizer.json").is_file()


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    """A local folder needs no hub, whatever it is called."""
    assert resolve_model(str(tmp_path), None, None) == tmp_path


@pytest.mark.parametrize("model_id", ["/nowhere/model", "./nowhere", "~/nowhere/model"])
def test_a_path_that_is_no_folder(model_id: str) -> None:
    """A mistyped path is not looked for on the hub; one line names the option to check."""
    with pytest.raises(ModelNotFound, match="is not a folder: check --model-id"):
        resolve_model(model_id, None, None)
