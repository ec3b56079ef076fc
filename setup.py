"""The extension modules; everything else about the package stands in pyproject.toml.

SGFAST_DEBUG=1 builds with Cython's bounds and overflow checks and without optimisation.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

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

processors = os.cpu_count() or 1
setup(
    ext_modules=cythonize(extensions, compiler_directives=directives, nthreads=processors),
    options={"build_ext": {"parallel": processors}},
)
