"""Ask `ucdir serve` everything its /openapi.json allows and forbids, and check every answer against it.

    python benchmarks/fuzz.py --examples 300

Draws a gallery as `benchmarks/load.py` does, starts a real `ucdir serve` on loopback and lets schemathesis ask it. A 5xx other
than 503 or an answer that is not described is a failure; exits with 1 then.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from load import draw, resident, serving

# random bytes are no image, so a request that keeps to the description may well be refused; and what is wrong with a form may
# not reach the service: an empty list of values is no field at all
SETTINGS = """
[checks]
positive_data_acceptance.enabled = false

[[operations]]
include-name = "POST /search"
checks = { negative_data_rejection.enabled = false, positive_data_acceptance.enabled = false }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300, help="for each route, about")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists() and shutil.which("schemathesis") is None:
        sys.exit("schemathesis is not installed. Run: pip install schemathesis")
    with tempfile.TemporaryDirectory() as folder:
        _, gallery = draw(Path(folder), 40)
        with serving(gallery, 64, Path(folder) / "log.txt") as (process, port):
            before = resident(process.pid)
            (Path(folder) / "schemathesis.toml").write_text(SETTINGS, encoding="utf-8")
            command = [str(program), "run", f"http://127.0.0.1:{port}/openapi.json", "--max-examples", str(arguments.examples)]
            command += ["--seed", str(arguments.seed)]
            ended = subprocess.run(command, cwd=folder, check=False)
            print(f"memory of the service: {before / 1e6:.0f} MB at the start, {resident(process.pid) / 1e6:.0f} MB at the end")
    sys.exit(1 if ended.returncode else 0)


if __name__ == "__main__":
    main()
