"""OpenAI's /v1/responses: requests as chats, output items and their events, and the store of responses.

Field names and wording are OpenAI's.
"""
