"nbdev_clean and nbdev_export, and a failure for each file they change: what is committed must be what the notebooks export."
import hashlib
import subprocess
import sys
from pathlib import Path

PLACES = ("nbs", "latentlab", "pyproject.toml", "README.md", "settings.ini")
LEFT_OUT = {"__pycache__", ".ipynb_checkpoints", ".last_checked"}  # caches of Python and Jupyter, none of them in git


def state() -> dict[Path, str]:
    "File -> hash of its content. Compared before and after, so work that is not committed yet is no failure of its own."
    places = [Path(place) for place in PLACES]
    files = [file for place in places for file in ([place] if place.is_file() else place.rglob("*")) if file.is_file()]
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if not LEFT_OUT & set(file.parts)}


def main() -> int:
    before = state()
    for tool in ("nbdev_clean", "nbdev_export"):
        said = subprocess.run([tool], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        print(said.stdout + said.stderr, end="")
        if said.returncode or "Failed to clean notebook" in said.stderr: return 1
    after = state()
    changed = sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))
    for file in changed:
        verb = "wrote a new" if file not in before else "removed" if file not in after else "changed"
        print(f"nbdev_clean and nbdev_export {verb} {file}: look at `git diff {file}` and commit it (edit notebooks, never the exported file)")
    return int(bool(changed))


if __name__ == "__main__":
    sys.exit(main())
