"""The command line: calls one function of `ucdir.commands`, which is imported only then."""

import sys

from cyclopts import App, CycloptsError, Parameter

from ucdir import __version__
from ucdir.errors import UcdirError

app = App(
    name="ucdir",
    help="Search one image collection with pictures from another that looks nothing like it.",
    version=f"ucdir {__version__}",
    help_format="plaintext",
    group_parameters="Options",
    default_parameter=Parameter(show_env_var=False, allow_repeating=True),
)
data = App(name="data", help="Information about public data sets, and manifests of their files.")
COMMANDS = {
    "check": "Look for unreadable, odd and duplicate images before training.",
    "train": "Learn an encoder from two or more folders, without labels.",
    "evaluate": "Score an encoder in both directions of every pair of domains, next to training-free baselines.",
    "benchmark": "Compare methods on all pairs of a data set, in both directions, over several seeds.",
    "report": "Write one HTML page about a run or a benchmark, with curves, scores, hits and a map.",
    "index": "Embed folders of images for searching. Run it again after images have changed.",
    "embed": "Write embeddings for other tools: an array, and a table that names the image of each row.",
    "export": "Write model.onnx into an encoder folder, so that search and serve start in a second, without torch.",
    "search": "Find the images of a gallery that are most similar to a picture.",
    "serve": "Search galleries in a browser, by dropping or drawing a picture, or from programs over HTTP.",
    "demo": "Draw two collections, learn to search one with the other, and show the hits.",
}
DATA_COMMANDS = {
    "prepare": "Make manifests of a public data set, and check that it is complete.",
    "info": "Show the source, terms and downloads of a public data set.",
}
for name, summary in COMMANDS.items():
    app.command(f"ucdir.commands.{name}:{name}_command", name=name, help=summary)
for name, summary in DATA_COMMANDS.items():
    data.command(f"ucdir.commands.data:{name}_command", name=name, help=summary)
app.command(data)
app.register_install_completion_command(help="Install completion of commands and options for this shell.")


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        from ucdir.commands.console import is_helper

        if not is_helper():
            print(f"ucdir: {error} See ucdir --help.", file=sys.stderr)
        sys.exit(2)
    except UcdirError as error:
        if not error.told_elsewhere:
            print(f"ucdir: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ucdir: interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    sys.exit(0)
