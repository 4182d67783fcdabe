"""Pin the base images: ask their registries for digests, and write them to .env, which compose reads.

Dockerfile and compose files name each image by a tag, in a variable NAME_IMAGE. A tag moves; a digest is one image.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

FILES = ("Dockerfile", "docker-compose.yml", "deploy/tls.yml")
OUR_OWN = "TAPELINE_IMAGE"


def images(root: Path) -> dict[str, str]:
    """Each variable and the tag that is its default."""
    text = "".join((root / name).read_text(encoding="utf-8") for name in FILES)
    found = re.findall(r"^ARG (\w+_IMAGE)=(\S+)", text, re.MULTILINE) + re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text)
    return {variable: tag for variable, tag in found if variable != OUR_OWN}


def digest(tag: str) -> str:
    """The digest that the tag has in its registry now."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{json .Manifest}}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"no digest of {tag}, and .env is unchanged: {done.stderr.strip()}")
    return str(json.loads(done.stdout)["digest"])


def main(root: Path) -> int:
    """Replace or add a line for each image."""
    pinned = {variable: f"{tag}@{digest(tag)}" for variable, tag in images(root).items()}
    path = root / ".env"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in lines if line.partition("=")[0] not in pinned]
    added = [f"{variable}={image}" for variable, image in pinned.items()]
    path.write_text("\n".join([*kept, *added]) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(added) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent.parent))
