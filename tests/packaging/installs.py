"""Installs of the package as users make them: a wheel, ``pip install .``, an editable install; each imports all of it.

Run as ``python -m tests.packaging.installs`` (``make package``); the tests themselves run on the editable install.
Dependencies come from the interpreter that runs this, so nothing but the package itself is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
IMPORTS = """
import importlib, os, pkgutil, sys
import hero_plugin, hero_plugin.adapters, hero_plugin.integrations
assert sys.argv[1] in hero_plugin.__file__, hero_plugin.__file__
for package in (hero_plugin, hero_plugin.adapters, hero_plugin.integrations):
    folder = os.path.dirname(package.__file__)  # alone: a checkout's package looks beside itself for the other two
    for module in pkgutil.walk_packages([folder], package.__name__ + "."):
        importlib.import_module(module.name)
names = ["CGDETR", "EaTR", "EMB", "FlashVTG", "MomentDETR", "QDDETR", "TaskWeave", "TRDETR", "UVCOM"]
assert [adapter.__name__ for adapter in hero_plugin.known_adapters()] == [f"{name}Adapter" for name in names]
"""


def main() -> int:
    """Build, install three times, import from elsewhere; return 0, as whatever fails ends the process."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(sys.executable, "-m", "build", "--wheel", "--outdir", str(work / "dist"), str(REPOSITORY))
        (wheel,) = (work / "dist").glob("*.whl")
        here = str(REPOSITORY)
        for name, target in (("wheel", [str(wheel)]), ("pip install .", [here]), ("editable", ["--editable", here])):
            environment = work / name.replace(" ", "-").rstrip(".")
            venv.create(environment, with_pip=True)
            borrow_dependencies(environment)
            python = str(environment / "bin" / "python")
            run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", *target)
            # Isolated: a PYTHONPATH of the caller must not find the package first.
            run(python, "-I", "-c", IMPORTS, here if name == "editable" else str(environment), cwd=work)
            print(f"{name}: installs and imports")
    return 0


def borrow_dependencies(environment: Path) -> None:
    """Let the new environment see this interpreter's packages, after its own."""
    here = [path for path in sys.path if path.endswith("site-packages")]
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text("".join(f"{path}\n" for path in here))


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command, showing what it said only if it failed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    sys.exit(main())
