"""The server: the chains of `chains/`, as the environment sets it up."""

from pathlib import Path

from chainserve import create_app, discover, run

app = create_app(discover(Path(__file__).parent / "chains"))

if __name__ == "__main__":
    run(app)
