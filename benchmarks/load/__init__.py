"""Load on a server that streams tokens: what is sent, how it is sent, what is read off it."""
