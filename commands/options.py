"""The options that several commands share, each with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common.errors import UserError
from modeling.presets import PRESETS

Yaml = Annotated[Path, typer.Argument(help="Description of the data set, such as examples/online_retail.yaml.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that the event files are in; the YAML's data_root otherwise.", envvar="NEXTITEM_DATA"),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting of the YAML: --set sessions.max_length=50."),
]
Preset = Annotated[
    str | None, typer.Option(help=f"A recipe for the model, instead of the YAML's: {' or '.join(PRESETS)}.")
]
Config = Annotated[Path | None, typer.Option(help="YAML whose 'model' and 'serving' settings apply.")]
Features = Annotated[Path, typer.Option(help="Folder that 'nextitem preprocess' writes.")]
Model = Annotated[Path, typer.Option(help="Folder that 'nextitem train' writes.")]
Models = Annotated[
    list[Path],
    typer.Option(
        "--model",
        metavar="<path>",
        help="Folder that 'nextitem train' writes; repeat for several seeds: their mean and how they differ.",
    ),
]
Repository = Annotated[Path, typer.Argument(help="Folder that 'nextitem export' writes.")]
Cluster = Annotated[
    str | None,
    typer.Option(help="threads[N] in this process, local[N] processes, tcp://host:port of a Dask scheduler, or cuda."),
]
DAYS = "an appended day such as 2026-11-20, or days 2026-11-14..2026-11-20"
Url = Annotated[str | None, typer.Option(help="host:port of the server; by default port 8001 (gRPC) or 8000 (HTTP).")]
Protocol = Annotated[str, typer.Option(help="grpc or http.")]
Watched = Annotated[
    str | None, typer.Option(help="host:port of the server's HTTP: wait until it answers so, or take it back.")
]
CaFile = Annotated[
    Path | None,
    typer.Option(help="PEM file of the certificates to trust, for https:// and grpcs://.", envvar="NEXTITEM_CA_FILE"),
]
TokenFile = Annotated[Path | None, typer.Option(help="File with the server's token; NEXTITEM_TOKEN otherwise.")]
Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every network.")]


def numbers(flag: str, text: str) -> list[int]:
    """Whole numbers from 1 on, with commas between them; each once, in their order.

    Raises
    ------
    UserError
        When the text of the flag says anything else.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise UserError(f"{flag} {text}: write numbers with commas between them") from error
    if min(found) < 1:
        raise UserError(f"{flag} {text}: numbers must be above zero")
    return list(dict.fromkeys(found))
