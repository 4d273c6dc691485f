"""The Grafana dashboard: tables of panels, and `build.py`, which makes deploy/grafana/peregrine.json of them."""
