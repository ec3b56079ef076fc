"""The extension modules; everything else about the package stands in pyproject.toml.

SGFAST_DEBUG=1 builds with Cython's bounds and overflow checks and without optimisation.
"""

import os
import sys
import sysconfig
from pathlib import Path

from Cython import __version__ as cython_version
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command import build_ext as building

debug = os.environ.get("SGFAST_DEBUG") == "1"

# The one place where Cython's directives are set.
directives = {
    "language_level": 3,
    "boundscheck": debug,
    "wraparound": False,
    "initializedcheck": debug,
    "cdivision": True,
    "embedsignature": True,
    "freethreading_compatible": False,
}

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=["-O0", "-g"] if debug else ["-O3"],
    )
    for path in sorted(Path("sgfast").rglob("*.pyx"))
]

#: What the modules beside the sources were made with, but for these.
note = Path("build", "made-with")
made_with = repr((debug, directives, cython_version, sys.version, os.environ.get("CC"), os.environ.get("CFLAGS")))


class build_ext(building.build_ext):
    def run(self):
        note.unlink(missing_ok=True)
        super().run()
        if self.inplace or self.editable_mode:
            note.parent.mkdir(exist_ok=True)
            note.write_text(made_with)


def are_made():
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    made = [Path(*extension.name.split(".")).with_suffix(suffix) for extension in extensions]
    sources = [Path("setup.py"), *Path("sgfast").rglob("*.pyx"), *Path("sgfast").rglob("*.pxd")]
    return (
        note.exists() and note.read_text() == made_with and all(path.exists() for path in made)
        and min(path.stat().st_mtime_ns for path in made) > max(path.stat().st_mtime_ns for path in sources)
    )  # fmt: skip


# pip install -e uses them where they are. It would compile all of them each time, in a folder of its own: for README's
# second command, too.
if "editable_wheel" in sys.argv and are_made():
    extensions = []

processors = os.cpu_count() or 1
setup(
    cmdclass={"build_ext": build_ext},
    ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=processors),
    options={"build_ext": {"parallel": processors}},
)
