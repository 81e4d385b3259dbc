"""Keeps long polls short: what is asked for is whether an answer is right, not how long it can be waited for."""

import re

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    wait = (case.query or {}).get("wait")
    if isinstance(wait, str) and re.fullmatch(r"[0-9]+(ms|s|m|min|h)", wait):
        case.query["wait"] = "1ms"
