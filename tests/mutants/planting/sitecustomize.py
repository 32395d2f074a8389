"""Plants the bug in $MINIRES_PLANTED, JSON [path, old, new], as a process or its children import that source file."""

import json
import os
from importlib.machinery import SourceFileLoader

if planted := os.environ.get("MINIRES_PLANTED"):
    path, old, new = json.loads(planted)
    sound = SourceFileLoader.get_code

    def get_code(self, fullname):  # without the cache of compiled files, for this one
        if os.path.realpath(self.path) != path:
            return sound(self, fullname)
        return compile(self.get_data(path).decode().replace(old, new), path, "exec", dont_inherit=True)

    SourceFileLoader.get_code = get_code
