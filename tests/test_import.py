"""Importing the package changes nothing that other code in the process sees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SNAPSHOT = """
import importlib, locale, logging, pkgutil, random, signal, sys, warnings
import numpy, torch, monai.bundle, ignite.engine, pandas, matplotlib, nibabel, SimpleITK, scipy.ndimage, skimage, fire
import pydicom, highdicom, monai.networks.nets, monai.apps, PIL.Image, yaml, tqdm, torch.utils.tensorboard

def state():
    loggers = [logging.getLogger(name) for name in sorted(logging.root.manager.loggerDict)]
    return {
        "excepthook": sys.excepthook,
        "displayhook": sys.displayhook,
        "path": list(sys.path),
        "root handlers": (logging.root.level, list(logging.root.handlers)),
        "own handlers": [(one.name, one.handlers) for one in loggers if one.name[:7] == "scripts" and one.handlers],
        "warnings": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "interrupt": signal.getsignal(signal.SIGINT),
        "environment": dict(__import__("os").environ),
        "numpy errors": numpy.geterr(),
        "random": (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "torch": (
            torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic, torch.backends.cuda.matmul.allow_tf32,
            torch.get_float32_matmul_precision(),
        ),
        "matplotlib": dict(matplotlib.rcParams),
        "monai": monai.config.deviceconfig.USE_COMPILED,
    }

before = state()
import scripts
# What only MONAI Label's own process imports: it needs packages of that environment.
left_out = ("scripts.monai_label.server", "scripts.monai_label.serving.")
for found in pkgutil.walk_packages(scripts.__path__, "scripts."):
    if not found.name.startswith(left_out):
        importlib.import_module(found.name)
after = state()
print("changed:", [key for key in before if before[key] != after[key]])
"""


def test_importing_every_module_changes_no_global_state(bundle_root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SNAPSHOT],
        cwd=bundle_root,
        env={**os.environ, "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "changed: []"
