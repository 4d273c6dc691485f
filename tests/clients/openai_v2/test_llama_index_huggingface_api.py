"""LlamaIndex's Hugging Face model, which replaces its TGI one."""

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.llms.huggingface_api import HuggingFaceInferenceAPI

from clients.server import KEY, Server
from clients.shapes import CHAT, PROMPT

CLIENT = "llama-index-llms-huggingface-api"
MESSAGES = [ChatMessage(role="user", content=CHAT)]


@pytest.fixture
def model(server: Server) -> HuggingFaceInferenceAPI:
    return HuggingFaceInferenceAPI(model=server.url, token=KEY, num_output=24, task="text-generation")


def test_context_length_from_info(server: Server) -> None:
    """It asks /info for the longest prompt, if the provider is named."""
    asked = HuggingFaceInferenceAPI(model=server.url, token=KEY, provider="hf-inference")
    assert asked.context_window == 2047


def test_text_generation(model: HuggingFaceInferenceAPI) -> None:
    """Text, whole and streamed."""
    assert model.complete(PROMPT).text
    assert list(model.stream_complete(PROMPT))[-1].text


def test_chat(server: Server) -> None:
    """A chat, whole and streamed."""
    model = HuggingFaceInferenceAPI(model=server.url, token=KEY, num_output=24)
    assert model.chat(MESSAGES).message.content
    assert list(model.stream_chat(MESSAGES))[-1].message.content
