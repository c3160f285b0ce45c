"""`distildire serve`: the page and the API."""

from __future__ import annotations

from typing import Annotated

import typer

from distildire.cli.app import (
    DeviceName,
    KindOption,
    app,
    say_device,
    say_kind,
    warn,
)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address; loopback by default.", envvar="DISTILDIRE_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            help="TCP port; 0 for a free one.", envvar="DISTILDIRE_PORT", min=0, max=65535
        ),
    ] = 8000,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="Bundled model by name, or the folder of a bundle.",
            envvar="DISTILDIRE_MODEL",
        ),
    ] = "nano",
    fpr: Annotated[
        float, typer.Option(help="Error budget, above 0, at most 0.5.", envvar="DISTILDIRE_FPR")
    ] = 0.01,
    kind: KindOption = None,
    device: Annotated[
        DeviceName, typer.Option(help="What runs the network.", envvar="DISTILDIRE_DEVICE")
    ] = DeviceName.cpu,
    isolate: Annotated[
        bool, typer.Option(help="Decode uploads in processes of their own, under limits.")
    ] = True,
) -> None:
    """Serve the page at / and the API at /v1; DISTILDIRE_API_KEY asks for a bearer key."""
    from distildire.detector import Detector
    from distildire.web.server import serve as run
    from distildire.web.settings import Settings, key_from_environment

    settings = Settings(key=key_from_environment(), isolate=isolate)
    detector = Detector(model, fpr=fpr, kind=kind, device=device.value)
    say_device(detector, device)
    say_kind(detector)
    run(detector, host=host, port=port, settings=settings, listening=warn)
