"""Build the wheel: requirements from the files, configs that name the installed package."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = ("dicom", "openvino", "train", "cluster", "pacs")


class Requirements(MetadataHookInterface):
    """Read dependencies from requirements-core.txt, an extra's from requirements-EXTRA.txt."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds them to the project's metadata."""
        metadata["dependencies"] = self._read("core")
        metadata["optional-dependencies"] = {extra: self._read(extra) for extra in EXTRAS}

    def _read(self, name: str) -> list[str]:
        lines = (Path(self.root) / f"requirements-{name}.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in (line.split("#")[0].strip() for line in lines) if line]


class Configs(BuildHookInterface):  # type: ignore[type-arg]
    """Packs configs whose `scripts.` targets are those of `lung_infection_ct.`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Writes them to a temporary folder, which the wheel is made from."""
        self.folder = Path(tempfile.mkdtemp())
        shutil.copytree(Path(self.root) / "configs", self.folder / "configs")
        for path in self.folder.rglob("*.*"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"\bscripts\.(?=[a-z_])", "lung_infection_ct.", text), encoding="utf-8")
        build_data["force_include"][str(self.folder / "configs")] = "lung_infection_ct/configs"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes the temporary folder."""
        shutil.rmtree(self.folder)
