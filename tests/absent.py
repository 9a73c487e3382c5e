"""A Python in which modules that are installed are not there."""

HIDE = """\
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)
sys.meta_path[:] = map(Without, sys.meta_path)
"""


def program(names):
    """What hides modules (their names) from all that is imported after it, as Python.

    Not by None in sys.modules: scipy looks there for sphinx, to see whether documentation is being made.
    """
    return f"HIDDEN = {sorted(names)!r}\n{HIDE}"
