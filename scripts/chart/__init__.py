"""Making of the Helm chart: its schema and README from values.yaml, copies of rules and dashboard, the package;
and the Helm binaries with which it is tested.
"""
