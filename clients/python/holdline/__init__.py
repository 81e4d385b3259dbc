"""What a worker can tell Holdline, and what Holdline tells a worker. Standard library only.

    async with holdline.register("ws://127.0.0.1:9001", id="w1") as place:
        await place.told_to_stop()             # SIGTERM, or the operator's drain
                                               # leaving the block drains first, then withdraws

Nothing here is needed to be a worker: what it buys is in docs/worker-guide.md of Holdline. In reading order: `_admin` asks the
admin API, `_registration` keeps a worker's place, `_owners` holds back the signals of the server that runs an
application, `_resume` reads the headers of an attach.
"""

from ._admin import Refused
from ._registration import Registration, register
from ._resume import Resume, commit

__all__ = ["Refused", "Registration", "Resume", "commit", "register"]
