"""The APIs: routes, schemas and the JSON of answers, one folder for each API.

An API translates its parameters into `GenerateParameters` and the engine's tokens into its own JSON.
"""
