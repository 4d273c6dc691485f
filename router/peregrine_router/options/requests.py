"""Options: limits of one request."""

from pydantic_settings import BaseSettings

from peregrine_router.options.declaration import option


class RequestOptions(BaseSettings):
    """Limits of one request."""

    max_input_tokens: int | None = option(
        None, "MAX_INPUT_TOKENS", "Tokens of the longest prompt. Not set: one less than max_total_tokens.", ge=1
    )
    max_total_tokens: int | None = option(
        None, "MAX_TOTAL_TOKENS", "Tokens of prompt and output together. Not set: the model's context length.", ge=2
    )
    max_request_timeout: float | None = option(
        None,
        "MAX_REQUEST_TIMEOUT",
        "Time after which any request ends with an error. Not set: never.",
        metavar="SECONDS",
        gt=0,
    )
    max_best_of: int | None = option(
        None, "MAX_BEST_OF", "Largest `best_of` or `n` of a request. Not set: 2 on TGI's routes, 128 on OpenAI's.", ge=1
    )
    max_stop_sequences: int = option(4, "MAX_STOP_SEQUENCES", "Most `stop` sequences of a request.", ge=0)
    max_stop_length: int = option(1024, "MAX_STOP_LENGTH", "Most characters of one stop sequence.", ge=1)
    max_stop_token_ids: int = option(64, "MAX_STOP_TOKEN_IDS", "Most `stop_token_ids` of a request.", ge=0)
    max_top_n_tokens: int | None = option(
        None,
        "MAX_TOP_N_TOKENS",
        "Largest `top_n_tokens` or `top_logprobs` of a request. Not set: 5 on TGI's routes, 20 on OpenAI's.",
        ge=0,
    )
    max_logit_bias: int = option(1024, "MAX_LOGIT_BIAS", "Most tokens in the `logit_bias` of a request.", ge=0)
    max_grammar_length: int = option(65_536, "MAX_GRAMMAR_LENGTH", "Most bytes of a grammar in UTF-8.", ge=1, le=65_536)
    max_tools: int = option(64, "MAX_TOOLS", "Most `tools` of a chat request.", ge=0)
    max_client_batch_size: int | None = option(
        None,
        "MAX_CLIENT_BATCH_SIZE",
        "Most prompts of one request. Not set: 4 of /vertex, 2048 of /v1/completions.",
        ge=1,
    )
    disable_grammar_support: bool = option(False, "DISABLE_GRAMMAR_SUPPORT", "Refuse grammars and forced tool calls.")
    special_tokens_in_prompts: bool = option(
        False,
        "SPECIAL_TOKENS_IN_PROMPTS",
        "Parse special tokens in the text of raw prompts, for clients that apply chat templates themselves. "
        "Chat messages stay text.",
    )
