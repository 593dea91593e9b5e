"""The file that is not ours: as its makers published it, with its terms beside it."""

from pathlib import Path

from scripts.files import sha256

ASSETS = Path(__file__).resolve().parents[2] / "scripts/viewer/assets"
SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
"""Of dist/niivue.umd.js in version 0.69.0 of npm's @niivue/niivue (CONTRIBUTING.md: how to renew
it)."""


def test_niivue_is_the_published_file(bundle_root: Path) -> None:
    assert sha256(ASSETS / "niivue.js") == SHA256
    assert SHA256 in (ASSETS / "niivue.LICENSE.txt").read_text()
    assert SHA256 in (bundle_root / "CONTRIBUTING.md").read_text()
