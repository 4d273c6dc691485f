"""`peregrine` with what metrics lack on a plain CPU: python watched_serve.py serve [options].

It knows the device's peaks, and each request has a trace.
"""

from functools import partial

from peregrine_router.cli import main
from peregrine_router.hardware import ROOFS, Roof
from peregrine_router.http import request_lifecycle
from peregrine_router.observability.observer import RequestRecord

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"

if __name__ == "__main__":
    ROOFS[""] = Roof(1e11, 1e12)
    vars(request_lifecycle)["RequestRecord"] = partial(RequestRecord, trace_id=TRACE_ID)
    main()
