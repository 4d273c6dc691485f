"""The step loop: schedule, send, wait, commit, deliver; and the token stream of each request.

One engine a server, on the router's event loop.
"""
