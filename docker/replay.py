"""Does a Dockerfile do what it says? Its own lines, run in root file systems made by debootstrap: no Docker is needed.

    python docker/replay.py docker/Dockerfile.cpu --folder /tmp/images --build-arg TORCH=…

Each stage is a copy of a Debian with the Python of that release, which stands for the image that FROM names; RUN is
run by chroot in namespaces of its own, COPY copies. In the last one, as its USER: `stegoflow doctor`, a run, and a
worker by ENTRYPOINT and CMD until HEALTHCHECK is content. Needs root, debootstrap, and gigabytes. An instruction that
it does not know is an error. `--mount` and `--env` bring in what a machine's way to its package registries needs.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,python3-dev,ca-certificates"
TRY = """
set -e
stegoflow doctor
cd /tmp
python - <<'END'
from pathlib import Path
import numpy as np
from PIL import Image
rng = np.random.default_rng(0)
for number in range(12):
    split = "val" if number < 4 else "train"
    path = Path(f"pictures/images/{split}/{number}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.kron(rng.integers(0, 255, (3, 4, 3)), np.ones((40, 40, 1)))
    Image.fromarray(pixels.astype(np.uint8)).save(path)
END
cat > my.yaml <<'END'
store: /store/replay
dataset: {root: /tmp/pictures}
features: {weights: packaged}
clusters: {k: 4}
head: {steps: 20}
masks: {crf: CRF}
END
stegoflow run my.yaml
stegoflow export latest --out /tmp/masks --store /store/replay
ls /tmp/masks
id
"""
SERVE = """
set -e
export PREFECT_API_URL=http://127.0.0.1:4299/api PREFECT_HOME=/tmp/prefect
prefect server start --port 4299 > /tmp/server.log 2>&1 &
up() { python -c "import urllib.request as u; u.urlopen('$PREFECT_API_URL/health')" 2> /dev/null; }
for _ in $(seq 120); do up && break; sleep 1; done
WORKER > /tmp/worker.log 2>&1 &
worker=$!
for _ in $(seq 60); do
    if HEALTH 2>/dev/null; then echo healthy; kill -TERM $worker; wait $worker || true; exit 0; fi
    sleep 2
done
tail -n 20 /tmp/server.log /tmp/worker.log
exit 1
"""


@dataclass
class Stage:
    """A root file system, and what instructions have set."""

    root: Path
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    args: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0"
    health: list[str] = field(default_factory=list)
    entry: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def expand(self, text: str) -> str:
        """A text with its $NAMEs filled in."""
        known = {**self.args, **self.env}
        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", lambda found: known.get(found[1] or found[2], ""), text)


def instructions(text: str) -> list[tuple[str, str]]:
    """(keyword, rest) of each instruction of a Dockerfile."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (word.upper(), rest.strip())
        for word, _, rest in (line.strip().partition(" ") for line in joined.splitlines())
        if word
    ]


def base(folder: Path) -> Path:
    """A fresh Debian with its Python where Docker's images of Python have theirs."""
    root = folder / "base"
    if not (root / "ready").exists():
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)], check=True)
        for name in ("python", "python3", "pip"):
            there = "/usr/bin/pip3" if name == "pip" else "/usr/bin/python3"
            (root / "usr/local/bin" / name).symlink_to(there)
        for managed in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            managed.unlink()  # Docker's images let pip install
        (root / "ready").touch()
    return root


def inside(stage: Stage, command: str, user: str, mounts: list[str], given: dict[str, str]) -> None:
    """A shell command in a stage. CalledProcessError where it fails."""
    root = stage.root
    (root / stage.workdir.lstrip("/")).mkdir(parents=True, exist_ok=True)
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    binds = [f"mount --rbind /dev {root}/dev"]
    for path in mounts:
        (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        binds.append(f"mount --bind -o ro {shlex.quote(path)} {root}{shlex.quote(path)}")
    variables = [
        f"{name}={value}"
        for name, value in {"HOME": "/root" if user == "0" else "/tmp", **given, **stage.args, **stage.env}.items()
    ]
    script = f"cd {shlex.quote(stage.workdir)} && {command}"
    run = shlex.join(
        ["chroot", f"--userspec={user}:{user}", str(root), "env", "-i", *variables, "/bin/sh", "-c", script]
    )
    alone = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={root}/proc"]
    subprocess.run([*alone, "sh", "-ec", "; ".join([*binds, f"exec {run}"])], check=True)


def copy(stage: Stage, rest: str, context: Path, stages: dict[str, Stage]) -> None:
    """COPY, of files and folders as they are; with --from of another stage."""
    words = shlex.split(rest)
    source = context
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = (stage.expand(word) for word in words)
    into = stage.root / os.path.join(stage.workdir, target).lstrip("/")
    for name in names:
        there = source / name.lstrip("/")
        if there.is_dir():
            shutil.copytree(
                there, into, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            at = into / there.name if target.endswith("/") or len(names) > 1 else into
            at.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(there, at)


def replay(
    path: Path, folder: Path, context: Path, args: dict[str, str], mounts: list[str], given: dict[str, str]
) -> Stage:
    """Every instruction of a Dockerfile; the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(path.read_text()):
        print(f"--- {word} {rest}", flush=True)
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if not re.fullmatch(rf"python:3\.\d+\.\d+-slim-{RELEASE}", image):
                raise SystemExit(f"no stand-in for {image}")
            name = name or "last"
            shutil.rmtree(folder / name, ignore_errors=True)
            subprocess.run(["cp", "-a", str(base(folder)), str(folder / name)], check=True)
            stages[name] = stage = Stage(folder / name)
            continue
        assert stage is not None
        if word == "ARG":
            name, _, default = rest.partition("=")
            stage.args[name] = args.get(name, default)
        elif word == "ENV":
            for pair in shlex.split(rest):
                name, _, value = pair.partition("=")
                stage.env[name] = stage.expand(value)
        elif word == "RUN":
            inside(stage, rest, stage.user, mounts, given)
        elif word == "COPY":
            copy(stage, rest, context, stages)
        elif word == "WORKDIR":
            stage.workdir = rest
        elif word == "USER":
            stage.user = rest
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD")[2])
        elif word == "ENTRYPOINT":
            stage.entry = json.loads(rest)
        elif word == "CMD":
            stage.command = json.loads(rest)
        elif word != "VOLUME":
            raise SystemExit(f"{word} is not replayed")
    assert stage is not None
    return stage


def main() -> None:
    parser = argparse.ArgumentParser(description="Run a Dockerfile's own lines in root file systems of debootstrap.")
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where root file systems are made")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--mount", action="append", default=[], help="a folder of this machine, read-only at the same path"
    )
    parser.add_argument("--env", action="append", default=[], help="a variable that RUN sees")
    parser.add_argument("--without-crf", action="store_true")
    options = parser.parse_args()
    args = dict(pair.split("=", 1) for pair in options.build_arg)
    given = {name: os.environ[name] for name in options.env}
    context = options.dockerfile.resolve().parents[1]
    stage = replay(options.dockerfile, options.folder, context, args, options.mount, given)
    size = subprocess.run(["du", "-sxm", str(stage.root)], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"--- {size} MB", flush=True)
    crf = "false" if options.without_crf else "true"
    for command in (
        TRY.replace("CRF", crf),
        SERVE.replace("WORKER", shlex.join([*stage.entry, *stage.command])).replace("HEALTH", shlex.join(stage.health)),
    ):
        inside(stage, f"sh -c {shlex.quote(command)}", stage.user, [], {})
    print("--- works", flush=True)


if __name__ == "__main__":
    sys.exit(main())
