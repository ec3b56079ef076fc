"""Builds the extension modules. Everything else about the package is in pyproject.toml.

SGFAST_DEBUG=1 builds with Cython's bounds checks and debug symbols, and without optimisation.
"""

import os
import sys
import sysconfig
from pathlib import Path

from Cython import __version__ as cython_version
from Cython.Build import cythonize
from Cython.Compiler import Options
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
    "freethreading_compatible": True,
    # Cython would let simple objects be pickled and copied, and would take any state that it is given, unchecked.
    "auto_pickle": False,
}

# Only a debug build needs the Cython source as comments in the generated C.
Options.emit_code_comments = debug

# The module that holds Cython's own memoryview code, which all other modules share.
SHARED = "sgfast.cython_shared"

# Modules with loops over packets. For all others -O2 is just as fast and compiles sooner.
HOT = {
    "sgfast.traffic.capture.reader",
    "sgfast.core.classify.classifier",
    "sgfast.core.conntrack.lifetime",
    "sgfast.core.dataplane",
    "sgfast.core.pipeline.batch",
    "sgfast.core.parallel.parsing",
    "sgfast.core.parallel.workers",
    "sgfast.clouds.logs.tokenizer",
    "sgfast.report.lines",
    "sgfast.report.rows",
}


def compiler_arguments(module):
    if debug:
        return ["-O0", "-g"]
    # -g0 overrides the -g in Python's own flags: debug symbols would be most of an installed module.
    return ["-O3" if module in HOT else "-O2", "-g0"]


def extension(module, source):
    return Extension(module, [source], extra_compile_args=compiler_arguments(module))


sources = sorted(Path("sgfast").rglob("*.pyx"))
extensions = [extension(".".join(path.with_suffix("").parts), str(path)) for path in sources]
extensions.append(extension(SHARED, SHARED.replace(".", "/") + ".c"))
processors = os.cpu_count() or 1

# Records what the C files (first line) and the modules beside the sources (second line) were built with.
note = Path("build", "made-with")
translated_with = repr((debug, directives, cython_version))
compiled_with = repr((debug, sys.version, os.environ.get("CC"), os.environ.get("CFLAGS")))


class build_ext(building.build_ext):
    """Translates to C only when modules are built. pip runs this file three times for one installation."""

    def run(self):
        noted = note.read_text().splitlines() if note.exists() else []
        # An editable install uses the modules beside the sources. pip would still compile all of them again in a
        # temporary folder, even for the second command in README.md. This skips modules that are up to date.
        is_current = noted == [translated_with, compiled_with] and are_younger_than_sources(self.extensions)
        if self.editable_mode and is_current:
            self.extensions = []
        # Cython compares only times, so it would reuse the C files of a debug build for a release build.
        self.translate(force=noted[:1] != [translated_with])
        note.unlink(missing_ok=True)
        super().run()
        if self.inplace or self.editable_mode:
            note.parent.mkdir(exist_ok=True)
            note.write_text(f"{translated_with}\n{compiled_with}\n")

    def translate(self, force):
        translated = cythonize(
            self.extensions,
            compiler_directives=directives,
            nthreads=processors,
            force=force,
            shared_utility_qualified_name=SHARED,
        )
        for ours, theirs in zip(self.extensions, translated, strict=True):
            assert ours.name == theirs.name
            ours.sources = theirs.sources


def are_younger_than_sources(extensions):
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    made = [Path(*extension.name.split(".")).with_suffix(suffix) for extension in extensions]
    inputs = [Path("setup.py"), *sources, *Path("sgfast").rglob("*.pxd")]
    return all(path.exists() for path in made) and min(map(written, made)) > max(map(written, inputs))


def written(path):
    return path.stat().st_mtime_ns


setup(
    cmdclass={"build_ext": build_ext},
    ext_modules=extensions,
    # An editable install adds this folder to the import path. By default it would install a finder, which runs code: no
    # type checker can follow that, and to all of them the package would be missing.
    options={"build_ext": {"parallel": processors}, "editable_wheel": {"mode": "compat"}},
)
