"""`python -m scripts dicom-node`: receives CT from a PACS and sends the results back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from .options import Backend, Device, Model, Pdf, Precision, Sc, Sr


def dicom_node(
    send_to: Annotated[str, Option(metavar="AET@HOST:PORT", help="The archive that gets the results.")],
    aet: Annotated[str, Option(help="AE title of this node.")] = "LUNG_AI",
    port: Annotated[int, Option(min=0, max=65535, help="Port of this node.")] = 11112,
    host: Annotated[str, Option(help="Address to listen on; 0.0.0.0: every one of this machine.")] = "127.0.0.1",
    allow: Annotated[
        list[str] | None,
        Option(metavar="AET", help="AE title that may call; repeat for several; default: that of --send-to."),
    ] = None,
    folder: Annotated[Path, Option(help="Folder of the queue, the results and the log.")] = Path("out/dicom_node"),
    quiet_s: Annotated[float, Option(min=0, help="Seconds without a new image after which a study is taken.")] = 30,
    keep_hours: Annotated[float, Option(min=0, help="Hours that images stay after their study is done.")] = 24,
    retries: Annotated[int, Option(min=0, help="How often a study is tried again; pauses of 10 s to 1 h.")] = 100,
    tls_cert: Annotated[Path | None, Option(help="Certificate in PEM: TLS for calls in and out.")] = None,
    tls_key: Annotated[Path | None, Option(help="Private key of --tls-cert.")] = None,
    tls_ca: Annotated[Path | None, Option(help="Certificates that peers must be signed by.")] = None,
    sr: Sr = True,
    sc: Sc = False,
    pdf: Pdf = False,
    weights: Annotated[Path | None, Option(help="Your weights with their metadata, in place of --model.")] = None,
    model: Model = "auto",
    device: Device = None,
    backend: Backend = "auto",
    precision: Precision = "auto",
) -> None:
    """Receive CT studies by DICOM, segment them, send the DICOM results to an archive.

    A queue in FOLDER survives a kill: the same command resumes. Stop it with Ctrl-C or SIGTERM.
    """
    import logging
    import signal
    import sys
    from functools import partial
    from threading import Event

    from ..errors import UserError
    from ..files import locked
    from ..inference.segmenter import Segmenter
    from ..inference.shipped import choose_model
    from ..pacs.log import StatusLine, log_file
    from ..pacs.node import Node, Patience
    from ..pacs.peers import Tls, check_title, parse_peer
    from ..pacs.queue import StudyQueue
    from ..pacs.receiving import receiving
    from ..pacs.sending import send
    from ..pipeline.case import CaseSegmenter, Settings
    from ..report.report import DEMONSTRATION

    title, archive = check_title(aet), parse_peer(send_to)
    callers = [check_title(one) for one in allow or [archive.title]]
    if bool(tls_cert) != bool(tls_key) or (tls_ca and not tls_cert):
        raise UserError("TLS needs two files; expected: --tls-cert and --tls-key, with --tls-ca or without")
    tls = Tls(tls_cert, tls_key, tls_ca) if tls_cert and tls_key else None
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with locked(folder, wait=False), log_file(folder / "node.log"), StatusLine() as line:
            choice = choose_model(model, weights, device)
            network = Segmenter(choice.path, device, backend=backend, precision=precision)
            segmenter = CaseSegmenter(network, Settings(sr=sr, sc=sc, pdf=pdf), choice)
            if segmenter.model["synthetic"]:
                print(DEMONSTRATION, file=sys.stderr)
            queue, deliver = StudyQueue(folder), partial(send, peer=archive, title=title, tls=tls)
            patience = Patience(quiet_s, keep_hours * 3600, retries)
            with receiving(queue, title, host, port, callers, tls) as taken:
                logging.getLogger(__name__).info(
                    f"{title} listens on {host}:{taken} for {', '.join(callers)}, sends to {archive}; files in {folder}"
                )
                Node(queue, segmenter, deliver, patience, line.show).run(Event())
    except KeyboardInterrupt:
        print("stopped; the same command resumes", file=sys.stderr)
