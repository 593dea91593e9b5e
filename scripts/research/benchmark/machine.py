"""Describe the machine that figures were measured on."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from ...settings import describe_machine, package_versions
from ...version import BUNDLE, bundle_version

FLAGS = re.compile(r"avx2|avx512f|avx512_(?:bf16|fp16|vnni)|avx_vnni|amx_\w+|asimd|sve2?|bf16|i8mm")
PACKAGES = ("monai", "numpy", "openvino", "torch")


def describe(device: torch.device) -> dict[str, Any]:
    """Return what a figure depends on: processor, cores, threads, instruction sets and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    name = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", text, re.MULTILINE)
    git = shutil.which("git") if (BUNDLE / ".git").exists() else None
    words = ["-C", str(BUNDLE), "describe", "--always", "--dirty"]
    return {
        **describe_machine(device),
        "processor": name[1] if name else platform.processor() or platform.machine(),
        "cores": len(re.findall(r"^processor\s*:", text, re.MULTILINE)) or None,
        "flags": sorted(filter(FLAGS.fullmatch, flags[1].split())) if flags else [],
        "packages": package_versions(PACKAGES),
        "bundle": bundle_version(),
        "commit": subprocess.run([git, *words], capture_output=True, text=True).stdout.strip() if git else None,
    }
