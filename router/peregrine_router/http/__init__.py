"""HTTP shared by all APIs: keys, request ids, body limits, errors, server-sent events, the life cycle of a request.

No module here knows the fields of a particular API, but `errors.py`, which has both forms of an error.
"""
