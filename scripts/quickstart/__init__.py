"""A new operator's quarter of an hour as a script: `make quickstart`, which docs/operations/quickstart.md describes.
A server, Prometheus and Alertmanager, first token, the dashboard's queries, an alert that fires and is resolved."""
