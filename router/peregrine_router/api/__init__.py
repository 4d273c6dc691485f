"""The APIs: routes, schemas and the JSON of answers, one folder for each API.

An API translates its own parameters into `admission.parameters` and the engine's tokens into its own JSON.
"""
