"""Text and tokens: tokenizer, incremental detokenizer, chat templates, special tokens.

Chat templates run in a process of their own.
"""
