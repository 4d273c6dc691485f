"""HTTP that every API shares: API keys, body limits, errors, server-sent events, a request's life from arrival to end.

Nothing here knows the fields of a particular API.
"""
