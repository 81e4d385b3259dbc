"""The Autobahn suite's client, for runs that look at what its cases say of a server."""

from kosoku import FailureError, _caseindex, run_fuzzingclient

COMPRESSED = ["12.*", "13.*"]


def say_less(count):
    """Has the cases of compression say `count` messages each at most, which they define as a thousand."""
    _caseindex.initialize_shims()
    import case12_x_x

    for case in [*case12_x_x.Case12_X_X, *case12_x_x.Case13_X_X]:
        case.COUNT = min(case.COUNT, count)


async def suite(address, cases, excluded=(), concurrency=4):
    """The verdict of each case against the echo at an address, by the case's id."""
    try:
        results = await run_fuzzingclient(f"ws://{address}/ws/x/echo", cases, list(excluded), concurrency=concurrency)
    except FailureError as failure:
        results = failure.results
    return {result.case_id: result for result in results}
