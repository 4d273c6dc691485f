"""Load on a server that streams tokens: workload, client, figures, charts."""
