"""The routes of OpenAI: /v1/completions, /v1/chat/completions, /v1/models; and tool calls.

Field names and wording are OpenAI's.
"""
