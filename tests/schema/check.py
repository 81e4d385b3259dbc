"""Holds the JSON Schema of the configuration against files that are good and texts that are not."""

import json
import os
import subprocess
import sys
import tomllib

import jsonschema

# Each is refused by its kind alone, as `holdline check` refuses it.
BAD = [
    "servr.listen = '127.0.0.1:8000'",
    "[server]\nlisten = 8000",
    "[server]\nthreads = 'many'",
    "[server]\nhandshake_timeout = '10'",
    "[server]\nheader_bytes_max = '32 KiC'",
    "[replay]\npolicy = 'sometimes'",
    "[[pools]]\nname = 'a'\n[[pools.backends]]\nid = 'w'",
    "[[pools]]\n[[pools.backends]]\nurl = 'http://127.0.0.1:1'",
    "[[routes]]\npaths = '/a'",
    "[[routes]]\nlabels = { room = 1 }",
    "[[routes]]\ninterrupt_codes = [999]",
    "[[workers]]\nname = 'a'",
    "[limits]\nkey_rate = '20 a minute'",
]
# Each is taken as it is.
GOOD = [
    "",
    "[server]\nlisten = '127.0.0.1:8000'\nclose_spread = 0\nheader_bytes_max = '32 KiB'",
    "[server]\nlisten = ['unix:/run/a.sock', '[::1]:8000']",
    "[reattach]\ngrace = 'none'",
    "[[routes]]\npath = ['/a', '/b/{c}']\ninterrupt_codes = [4000, '4001-4009']",
    "[[pools]]\n[[pools.backends]]\nurl = 'unix:/run/w.sock'\nserves = { phone = '7f3a' }",
]


def judged(text):
    """Whether `holdline check` takes the text."""
    holdline = os.environ["HOLDLINE_BIN"]
    check = subprocess.run([holdline, "check", "/dev/stdin"], input=text.encode(), capture_output=True)
    return check.returncode == 0


def main():
    holdline = os.environ["HOLDLINE_BIN"]
    printed = subprocess.run([holdline, "config", "schema"], check=True, capture_output=True).stdout
    schema = json.loads(printed)
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    wrong = 0

    def expect(name, text, good):
        nonlocal wrong
        errors = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(tomllib.loads(text))]
        if (not errors) != good:
            wrong += 1
            print(f"config-check: {name!r} is {'refused: ' + '; '.join(errors) if errors else 'taken'}", file=sys.stderr)

    for path in sys.argv[1:]:
        with open(path) as file:
            expect(path, file.read(), True)
    for text in GOOD + BAD:
        expect(text, text, text in GOOD)
        if judged(text) != (text in GOOD):
            wrong += 1
            print(f"config-check: holdline check thinks otherwise of {text!r}", file=sys.stderr)
    print(f"{len(sys.argv) - 1 + len(GOOD) + len(BAD) - wrong} passed, {wrong} failed")
    sys.exit(1 if wrong else 0)


main()
