"""Builds the images of this folder and hands them to the cluster: what `make images` runs.

    images/build.py                  all but notebook-rapids, each only when something in it changed
    images/build.py hub proxy        these
    images/build.py --digests        what is built, as JSON: {"hangang/hub:dev": "sha256:…"}

Each Containerfile builds anywhere on a public Debian image. Here it is built without one: the base is made by
debootstrap from the machine's own Debian mirror, and packages of Python and node are fetched on the machine, with its
settings, and handed to the build in a folder, so that no address, certificate or password gets into an image. Every image
is tried by its smoke test before it counts as built. Archives and what they were built from are kept in `.images`;
a cluster in `.cluster` gets those it does not have.

Needed: buildah, debootstrap, root, and the project's `.venv` (for pip and npm). The environment variable BASE names a
ready base image instead of debootstrap's.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "images"
ARCHIVES = ROOT / ".images"
CLUSTER = ROOT / ".cluster"
CLUSTER_PROGRAM = ROOT / "deploy" / "cluster" / "cluster.py"

CACHE = Path(os.environ.get("HANGANG_IMAGE_CACHE") or Path.home() / ".cache" / "hangang-images")
STORAGE = CACHE / "storage"
DOWNLOADS = CACHE / "downloads"
DEBS = CACHE / "debs"
RUN_STATE = Path("/run/hangang-images") / hashlib.sha256(bytes(CACHE)).hexdigest()[:12]

ORDER = ("hub", "notebook", "proxy", "postgres")
ON_REQUEST = ("notebook-rapids",)
ON_TOP_OF = {"notebook-rapids": "notebook"}
"""Images that are built on another of ours; all others on the base."""
TAG = "dev"

PYTHON = "3.13"
SUITE = "trixie"
GLIBC_MINORS = range(5, 29)
"""Wheels for glibc 2.5 to 2.28 (`manylinux_2_28`), as the locks are resolved."""

BASE_RECIPE = f"""\
set -eu
root=$1 sources=$2 mirror=$3
debootstrap --variant=minbase {SUITE} "$root" $mirror
cp "$sources" "$root/etc/apt/sources.list"
# As in Debian's own slim images: no service starts while packages are installed, and no manuals are kept.
printf '#!/bin/sh\\nexit 101\\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
for folder in doc man info locale; do
    echo "path-exclude /usr/share/$folder/*"
done > "$root/etc/dpkg/dpkg.cfg.d/slim"
echo 'path-include /usr/share/doc/*/copyright' >> "$root/etc/dpkg/dpkg.cfg.d/slim"
# apt's own tables of packages are as large as the system itself.
echo 'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";' > "$root/etc/apt/apt.conf.d/slim"
find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root/usr/share/man" "$root/usr/share/info" "$root/usr/share/locale"
find "$root/var/log" "$root/var/cache/apt" "$root/var/lib/apt/lists" -type f -delete
rm -f "$root/etc/hostname" "$root/etc/resolv.conf"
"""


class Problem(Exception):
    """What cannot be done, in a sentence for the person at the terminal."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the images and load them into the cluster.")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=", ".join(ORDER + ON_REQUEST))
    parser.add_argument(
        "--digests", action="store_true", help="print what is built, as JSON, and build nothing"
    )
    asked = parser.parse_args(arguments)
    try:
        if asked.digests:
            print(json.dumps(digests(), indent=2))
            return 0
        build_all(wanted(asked.images))
    except Problem as problem:
        print(f"images: {problem}", file=sys.stderr)
        return 1
    return 0


def build_all(names: Sequence[str]) -> None:
    """Build what changed, in order, and load what the cluster does not have."""
    # 1. One at a time on a machine: the storage and the downloads are shared by all checkouts.
    needs_programs()
    with taking_turns():
        # What a build that was killed left half done.
        buildah("rm", "--all", quiet=True, may_fail=True)
        # 2. The base, made once.
        base = os.environ.get("BASE") or base_image()
        # 3. Each image whose inputs changed.
        for name in names:
            build(name, base)
    # 4. The cluster, where there is one.
    if (CLUSTER / "kubeconfig").exists():
        load(names)
    else:
        say(f"no cluster here (`make cluster` makes one); the archives are in {ARCHIVES.relative_to(ROOT)}")


def wanted(asked: Sequence[str]) -> list[str]:
    """The images asked for, in the order of building, with those they stand on."""
    unknown = [name for name in asked if name not in ORDER + ON_REQUEST]
    if unknown:
        raise Problem(f"there is no image {unknown[0]}; there are {', '.join(ORDER + ON_REQUEST)}")
    names = set(asked or ORDER)
    names |= {ON_TOP_OF[name] for name in names if name in ON_TOP_OF}
    return [name for name in ORDER + ON_REQUEST if name in names]


def digests() -> dict[str, str]:
    """The images that are built, by the name they have in the cluster."""
    states = {name: built_state(name) for name in ORDER + ON_REQUEST}
    return {tag(name): f"sha256:{state['image']}" for name, state in states.items() if state}


# ---- one image ---------------------------------------------------------------------------------------------------


def build(name: str, base: str) -> None:
    began = time.monotonic()
    if name in ON_TOP_OF:
        base = local(ON_TOP_OF[name])
    base_id = image_id(base)
    # 1. Nothing changed: nothing to do.
    inputs = inputs_digest(name, base_id or base)
    state = built_state(name)
    if state and state["inputs"] == inputs:
        say(f"{name}: unchanged")
        return
    # 2. What it installs, fetched with the machine's own settings.
    say(f"{name}: building")
    (ARCHIVES / f"{name}.json").unlink(missing_ok=True)
    for lock in locks(name):
        fetch_wheels(lock)
    if "npm ci" in containerfile(name).read_text():
        fetch_node_packages()
    # 3. The image.
    before = image_id(local(name))
    buildah(
        *("build", "--isolation=chroot", "--layers", f"--file={containerfile(name)}", f"--tag={local(name)}"),
        *("--pull-never" if base_id else "--pull", f"--build-arg=BASE={base}"),
        *("--build-arg=PIP_NO_INDEX=1", "--build-arg=PIP_FIND_LINKS=/downloads/wheels"),
        *("--build-arg=npm_config_cache=/downloads/npm", "--build-arg=npm_config_offline=true"),
        *(f"--volume={DOWNLOADS}:/downloads", f"--volume={DEBS}:/var/cache/apt/archives"),
        str(ROOT),
        log=ARCHIVES / f"{name}.log",
    )
    # 4. Its smoke test, as the person in the container.
    smoke(name)
    # 5. The archive, and last the note that it is good.
    image = image_id(local(name))
    if image is None:
        raise Problem(f"{name} was built and is not there; is something else at work in {STORAGE}?")
    archive = ARCHIVES / f"{name}.tar"
    archive.unlink(missing_ok=True)
    buildah("push", "--quiet", local(name), f"docker-archive:{archive}:{local(name)}")
    state = {"inputs": inputs, "image": image}
    write(ARCHIVES / f"{name}.json", json.dumps(state))
    if before and before != image:
        # The layers that the new one shares with it stay.
        buildah("rmi", before, quiet=True, may_fail=True)
    megabytes = archive.stat().st_size / 1e6
    say(f"{name}: built in {time.monotonic() - began:.0f} s, {megabytes:.0f} MB")


def smoke(name: str) -> None:
    """Run the image's smoke test in it, as the user that the image names. Raises Problem with what it printed."""
    [script] = [path for path in sorted((IMAGES / name).glob("smoke.*")) if path.suffix in (".py", ".sh")]
    interpreter = "/opt/hangang/bin/python" if script.suffix == ".py" else "sh"
    container = buildah("from", "--pull-never", local(name)).strip()
    try:
        buildah(
            *("run", "--isolation=chroot", f"--volume={script}:/smoke/{script.name}:ro", container, "--"),
            *(interpreter, f"/smoke/{script.name}"),
            log=ARCHIVES / f"{name}-smoke.log",
        )
    finally:
        buildah("rm", container, quiet=True, may_fail=True)


def load(names: Sequence[str]) -> None:
    """Hand the cluster the archives it does not have; what it has is noted in its own folder and goes with it."""
    notes = CLUSTER / "images"
    states = {name: built_state(name) for name in names}
    missing = [
        name
        for name, state in states.items()
        if state and (not (notes / name).exists() or (notes / name).read_text() != state["image"])
    ]
    for name in missing:
        began = time.monotonic()
        archive = ARCHIVES / f"{name}.tar"
        done = subprocess.run([sys.executable, CLUSTER_PROGRAM, "load", archive], check=False)
        if done.returncode != 0:
            raise Problem(f"the cluster did not take {archive.name}; see above")
        notes.mkdir(exist_ok=True)
        write(notes / name, states[name]["image"])
        say(f"{name}: loaded into the cluster in {time.monotonic() - began:.0f} s")


# ---- what an image is made of --------------------------------------------------------------------------------------


def containerfile(name: str) -> Path:
    return IMAGES / name / "Containerfile"


def copied(name: str) -> list[Path]:
    """What the Containerfile copies from the repository."""
    sources: list[Path] = []
    for arguments in re.findall(r"^COPY (.+)$", containerfile(name).read_text(), re.MULTILINE):
        words = arguments.split()
        if not words[0].startswith("--from="):
            sources += [ROOT / word for word in words[:-1]]
    return sources


def locks(name: str) -> list[Path]:
    return [path for path in copied(name) if path.name == "requirements.txt"]


def inputs_digest(name: str, base: str) -> str:
    """Names the content of everything that goes into the image."""
    digest = hashlib.sha256(f"{base}\n".encode())
    sources = [containerfile(name), *copied(name), *sorted((IMAGES / name).glob("smoke.*"))]
    files = {file for source in sources for file in files_below(source)}
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).hexdigest()
        digest.update(f"{file.relative_to(ROOT)} {os.access(file, os.X_OK)} {content}\n".encode())
    return digest.hexdigest()


def files_below(source: Path) -> Iterator[Path]:
    if not source.exists():
        raise Problem(f"{source.relative_to(ROOT)} is copied into an image and is not there")
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders[:] = [one for one in folders if one not in ("__pycache__", ".ipynb_checkpoints")]
        yield from (Path(folder, one) for one in names)


def built_state(name: str) -> dict[str, str] | None:
    """What stands beside the archive; None when it was never built whole."""
    try:
        state: dict[str, str] = json.loads((ARCHIVES / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return state if (ARCHIVES / f"{name}.tar").exists() else None


def tag(name: str) -> str:
    return f"hangang/{name}:{TAG}"


def local(name: str) -> str:
    """The name in the storage, which is the one that Kubernetes makes of `hangang/…`."""
    return f"docker.io/{tag(name)}"


# ---- the base, and what is fetched ---------------------------------------------------------------------------------


def base_image() -> str:
    """The base in the storage; made where it is missing or its recipe changed."""
    recipe = hashlib.sha256(BASE_RECIPE.encode()).hexdigest()[:12]
    name = f"localhost/hangang/base:{SUITE}-{recipe}"
    if image_id(name):
        return name
    say(f"base: Debian {SUITE} by debootstrap")
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="base.") as folder:
        script, sources, root = Path(folder, "recipe"), Path(folder, "sources.list"), Path(folder, "root")
        script.write_text(BASE_RECIPE)
        mirror, lines = debian_sources()
        sources.write_text(lines)
        run(["sh", script, root, sources, mirror], log=ARCHIVES / "base.log")
        container = buildah("from", "scratch").strip()
        try:
            buildah("copy", "--quiet", container, str(root), "/")
            buildah("config", "--env=LANG=C.UTF-8", "--cmd=/bin/bash", container)
            buildah("commit", "--quiet", container, name)
        finally:
            buildah("rm", container, quiet=True, may_fail=True)
    return name


def debian_sources() -> tuple[str, str]:
    """The mirror that this machine's apt is set up with, and the image's list of sources on it.

    Both name nothing of our own: a machine without a Debian mirror gets debootstrap's default.
    """
    texts = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    found = [
        address.rstrip("/")
        for path in texts
        if path.suffix in (".list", ".sources") and path.is_file()
        for address in re.findall(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(\S+)", path.read_text(), re.MULTILINE)
    ]
    mirror = next((address for address in found if address.endswith("/debian")), "")
    security = next((address for address in found if address.endswith("/debian-security")), "")
    archive = mirror or "http://deb.debian.org/debian"
    lines = [f"deb {archive} {SUITE} main", f"deb {archive} {SUITE}-updates main"]
    if security:
        lines.append(f"deb {security} {SUITE}-security main")
    return mirror, "\n".join(lines) + "\n"


def fetch_wheels(lock: Path) -> None:
    """Put the wheels of a lock into the downloads; those that are there are checked, not fetched again."""
    stamp = fetched(lock)
    if stamp.exists():
        return
    wheels = DOWNLOADS / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    platforms = ["any", "linux_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
    platforms += [f"manylinux_2_{minor}_x86_64" for minor in GLIBC_MINORS]
    run(
        [
            *(ROOT / ".venv/bin/python", "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={PYTHON}"),
            *("--implementation=cp", f"--abi=cp{PYTHON.replace('.', '')}", "--abi=abi3", "--abi=none"),
            *(f"--platform={platform}" for platform in platforms),
            *(f"--find-links={wheels}", f"--dest={wheels}", f"--requirement={lock}"),
        ]
    )
    stamp.touch()


def fetch_node_packages() -> None:
    """Fill npm's own store with what package-lock.json names."""
    stamp = fetched(ROOT / "package-lock.json")
    if stamp.exists():
        return
    store = DOWNLOADS / "npm"
    binaries = ROOT / ".venv" / "bin"
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="npm.") as folder:
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(ROOT / name, folder)
        run(
            [binaries / "npm", "ci", "--silent", "--no-progress", f"--cache={store}"],
            folder=Path(folder),
            environment={"PATH": f"{binaries}:{os.environ['PATH']}"},
        )
    stamp.touch()


def fetched(lock: Path) -> Path:
    """The note that all of a lock has been fetched; it goes when the downloads are removed."""
    return DOWNLOADS / f"{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}.fetched"


# ---- programs ------------------------------------------------------------------------------------------------------


def needs_programs() -> None:
    missing = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if missing:
        raise Problem(
            f"{' and '.join(missing)} must be installed; on Debian: apt-get install {' '.join(missing)}"
        )
    if os.geteuid() != 0:
        raise Problem("building needs root: debootstrap and buildah's storage ask for it")
    for folder in (ARCHIVES, STORAGE, DOWNLOADS, DEBS / "partial"):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def taking_turns() -> Iterator[None]:
    with (CACHE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another build is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def image_id(name: str) -> str | None:
    """The image's id in the storage; None where there is none of this name."""
    found = buildah("images", "--quiet", "--no-trunc", name, quiet=True, may_fail=True).split()
    return found[0].removeprefix("sha256:") if found else None


def buildah(*arguments: str, log: Path | None = None, quiet: bool = False, may_fail: bool = False) -> str:
    """Run buildah on our own storage; return what it printed."""
    command = ["buildah", f"--root={STORAGE}", f"--runroot={RUN_STATE}", *arguments]
    return run(command, log=log, quiet=quiet, may_fail=may_fail)


def run(
    command: Sequence[str | Path],
    *,
    log: Path | None = None,
    folder: Path = ROOT,
    environment: dict[str, str] | None = None,
    quiet: bool = False,
    may_fail: bool = False,
) -> str:
    """Run a program; return what it printed, which with `log` is all that it said and is kept there.

    Raises Problem with the end of what it said when it fails, unless it may.
    """
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT if log else subprocess.PIPE,
        text=True,
        check=False,
    )
    if log:
        log.write_text(done.stdout)
    if done.returncode != 0 and not may_fail:
        told = (done.stdout if log else done.stdout + done.stderr).strip().splitlines()[-25:]
        where = f"; all of it is in {log.relative_to(ROOT)}" if log else ""
        program = " ".join(str(word) for word in command[:1])
        raise Problem("\n".join([f"{program} failed ({done.returncode}){where}:", *told]))
    if not quiet and not log and done.stderr:
        sys.stderr.write(done.stderr)
    return done.stdout


def write(path: Path, text: str) -> None:
    """The whole text, or nothing of it."""
    whole = path.with_name(f".{path.name}.new")
    whole.write_text(text)
    whole.replace(path)


def say(text: str) -> None:
    print(f"images: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
