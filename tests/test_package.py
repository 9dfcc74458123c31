"""What `pip install .` brings: all of the package, and what it needs beside Python files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEADLINE_S = 120.0


def test_the_wheel_is_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(ROOT)], check=True, timeout=DEADLINE_S)
    (wheel,) = tmp_path.glob("callreel-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("/METADATA"))).decode()
        scripts = archive.read(next(name for name in names if name.endswith("/entry_points.txt"))).decode()
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    expected = {name for name in sources if "__pycache__" not in name}
    assert expected <= names and any("migrations/versions" in name for name in names)
    assert "callreel = callreel.cli:main" in scripts
    assert "Provides-Extra: docx" in metadata and "License-Expression: Apache-2.0" in metadata


def test_no_lock_names_an_index_and_each_package_has_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lock in ("run.txt", "dev.txt"):
        text = (ROOT / "requirements" / lock).read_text()
        assert "://" not in text and "index-url" not in text
        packages = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
        assert len(packages) >= len(project["dependencies"])
        assert all("==" in line and line.endswith("\\") for line in packages)
        assert text.count("--hash=sha256:") >= len(packages)
