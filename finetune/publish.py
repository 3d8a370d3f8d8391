"""A release's folder: made beside its place, then put there whole; and, once it was measured, complete and sealed.

    python -m finetune.publish RELEASE --dataset DATASET --report REPORT --licence FILE --out FOLDER

FOLDER is RELEASE with the data's card, what it was trained on (baseline.json, for `fraudguard drift`), the metrics of
finetune.evaluate and its licence and attribution; nothing in it may change any more. Knows files and release.json; what
the parts hold is their makers' business.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finetune.baseline import baseline_of
from fraudguard.baseline import write_baseline
from fraudguard.domain import TIMELINE_VERSION
from fraudguard.engine.release import SUMS, open_release, seal
from fraudguard.engine.release_metrics import read_metrics
from fraudguard.errors import BadInput, FraudguardError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `out` when all has gone well; until then `out` stays as it is."""
    staging = out.with_name(out.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    yield staging
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    for file in out.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)  # safetensors writes files that only their owner reads


def write_manifest(
    folder: Path, *, name: str, version: str, description: str, prefix: str, base: str = "base",
    adapter: str | None = "adapter",
) -> None:  # fmt: skip
    """release.json, last of all: without it the folder is no release. base: its folder, or a hub id with its commit."""
    manifest = {
        "format": 1, "name": name, "version": version, "description": description,
        "base": base, "adapter": adapter, "head": "head", "prefix": prefix, "timeline": TIMELINE_VERSION,
    }  # fmt: skip
    (folder / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")


def complete(release: Path, data: Path, report: Path, licence: Path, out: Path) -> str:
    """Make `out`, the sealed release; its digest. Raises BadInput, BadModel.

    The report must be of this release's name and version, on this dataset's test.
    """
    with staged(out) as staging:
        shutil.copytree(release, staging, dirs_exist_ok=True, ignore=shutil.ignore_patterns(SUMS))
        files = {"data": data / "card.json", "metrics": report / "metrics.json", "licence": licence}
        names = {"data": "data.json", "metrics": "metrics.json", "licence": "LICENCE.md"}
        for role, file in files.items():
            if not file.is_file():
                raise BadInput(f"there is no {role} of the release", path=str(file))
            shutil.copyfile(file, staging / names[role])
        shutil.copyfile(data / "card.md", staging / "data.md")
        write_baseline(staging, baseline_of(data))
        manifest = json.loads((staging / "release.json").read_bytes()) | names
        (staging / "release.json").write_text(json.dumps(manifest, indent=1) + "\n")
        found = read_metrics(open_release(staging))
        digest = json.loads(files["data"].read_bytes())["splits"]["test"]["sha256"]
        if found is None or found.dataset.digest != digest:
            raise BadInput("was measured on another dataset", path=str(report), hint="measure it on --dataset")
        return seal(staging)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; what a person can mend is printed without a traceback and exits with 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("release", type=Path)
    parser.add_argument("--dataset", type=Path, required=True, help="what it was trained and measured on")
    parser.add_argument("--report", type=Path, required=True, help="folder that finetune.evaluate wrote")
    parser.add_argument("--licence", type=Path, required=True, help="Markdown: licence of the weights, attribution")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sealed release; it is replaced")
    options = parser.parse_args(arguments)
    try:
        digest = complete(options.release, options.dataset, options.report, options.licence, options.out)
    except FraudguardError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from error
    print(f"{options.out}: sealed, {digest}")


if __name__ == "__main__":
    main()
