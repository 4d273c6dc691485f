"""The ASGI application."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from peregrine_router.api.errors import install_error_handlers
from peregrine_router.api.sse import let_streams_finish
from peregrine_router.api.tgi import TgiApi
from peregrine_router.generation import Engine, ModelInfo
from peregrine_router.metrics import Metrics
from peregrine_router.settings import Settings
from peregrine_router.tokenizer import Tokenizer
from peregrine_router.validation import Validator


def build_app(engine: Engine, tokenizer: Tokenizer, settings: Settings, info: ModelInfo) -> FastAPI:
    """Wires the routes to an engine that is ready."""
    validator = Validator(tokenizer, settings, info)
    api = TgiApi(engine, validator, Metrics(engine, info), settings, info)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        validator.close()

    app = FastAPI(
        title="Peregrine",
        summary=f"Text generation with {info.model_id}",
        version=version("peregrine"),
        lifespan=lifespan,
        # A route with a slash too many is a 404: a redirect would make a client send its prompt twice.
        redirect_slashes=False,
    )
    let_streams_finish()
    install_error_handlers(app)
    app.include_router(api.router())
    return app
