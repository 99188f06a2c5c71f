"""The server: the chains of `chains/`, as the environment sets it up."""

from pathlib import Path

from chainserve import Settings, create_app, discover, run

settings = Settings()
app = create_app(discover(Path(__file__).parent / "chains"), settings)

if __name__ == "__main__":
    run(app, settings)
