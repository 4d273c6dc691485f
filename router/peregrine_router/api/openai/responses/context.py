"""The conversation that a request continues: its previous response's, then its own input."""

from peregrine_router.api.openai.responses.answer_schemas import Item
from peregrine_router.api.openai.responses.input_items import stored_form
from peregrine_router.api.openai.responses.schemas import ResponseRequest
from peregrine_router.api.openai.responses.store import ResponseStore
from peregrine_router.http.exceptions import UnknownItem, UnknownPreviousResponse

SHOWN_ID_LENGTH = 128
"""Characters of an unknown id in an error."""


def whole_conversation(body: ResponseRequest, store: ResponseStore, key_id: str) -> list[Item]:
    """All items that the model is to read. Raises UnknownPreviousResponse or UnknownItem."""
    return [*_previous(body, store, key_id), *_own(body, store, key_id)]


def _previous(body: ResponseRequest, store: ResponseStore, key_id: str) -> list[Item]:
    if body.previous_response_id is None:
        return []
    stored = store.find(key_id, body.previous_response_id)
    if stored is None:
        raise UnknownPreviousResponse(body.previous_response_id[:SHOWN_ID_LENGTH])
    return stored.conversation


def _own(body: ResponseRequest, store: ResponseStore, key_id: str) -> list[Item]:
    """The input, with its references resolved and without reasoning."""
    references = [item.id or "" for item in body.input if item.kind == "item_reference"]
    found = store.find_items(key_id, references)
    for id in references:
        if id not in found:
            raise UnknownItem(id[:SHOWN_ID_LENGTH])
    given = [item for item in body.input if item.kind != "reasoning"]
    return [found[item.id or ""] if item.kind == "item_reference" else stored_form(item) for item in given]
