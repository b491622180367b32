"""Sends requests to a TF Serving server, or runs a load test."""

from pathlib import Path

from keras_perceiver.cli import arguments, console

_DESCRIPTION = """Sends requests to a TF Serving server, or runs a load test.

  keras-perceiver serve-client localhost:8500 digits 0001.png 0002.png
  keras-perceiver serve-client localhost:8501 digits --rest images.npy
  keras-perceiver serve-client localhost:8500 digits 0001.png --requests 2000 \\
      --concurrency 16

Files other than arrays are sent to the signature `encoded`. Arrays (.npy with a batch
axis, or .npz with the inputs by name) are sent to `serving_default`. gRPC is faster for
arrays and needs TensorFlow. REST only needs NumPy.
"""


def parser():
    """Returns the parser of the options."""
    parser = arguments.Parser("serve-client", _DESCRIPTION)
    parser.add_argument("address", help="host:port of the server")
    parser.add_argument("model", help="name of the model on the server")
    parser.add_argument("files", nargs="+", help="files of a batch")
    parser.add_argument(
        "--input", default="image", help="name of the input; default: image"
    )
    parser.add_argument(
        "--signature", help="default: encoded, or serving_default for arrays"
    )
    parser.add_argument("--version", type=int, help="default: the latest")
    parser.add_argument(
        "--verify",
        metavar="DIR",
        help="first check the files of the exported version in this folder, which must be "
        "the one that is served, against its SHA256SUMS",
    )
    parser.add_argument("--rest", action="store_true", help="REST instead of gRPC")
    parser.add_argument(
        "--timeout", type=float, default=30, help="seconds; default: 30"
    )
    parser.add_argument(
        "--requests", type=int, help="number of requests of a load test"
    )
    parser.add_argument(
        "--concurrency", type=int, default=1, help="concurrent requests; default: 1"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print all outputs, a JSON object per example",
    )
    return parser


def check(options):
    """Raises an error for invalid options."""
    arguments.check_numbers(options, "version", "timeout", "requests", "concurrency")
    host, _, port = options.address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(
            f"The address must be HOST:PORT. Received: {options.address!r}. Pass, for "
            "example, localhost:8500."
        )
    for path in options.files:
        arguments.check_file("A file to send", path)
    arguments.check_folder("--verify", options.verify)
    if options.verify is not None:
        from keras_perceiver.serving.manifest import verify_version

        verify_version(options.verify)
    # Imports NumPy, which takes long.
    from keras_perceiver.serving.client import read_inputs

    options.batch, signature = read_inputs(options.files)
    options.signature = options.signature or signature
    if not isinstance(options.batch, dict):
        options.batch = {options.input: options.batch}
    if not options.rest:
        arguments.check_installed(
            "tensorflow_serving",
            "TF Serving's protocol, for gRPC (or use --rest),",
            "tensorflow-serving-api",
        )


def run(options):
    """Sends the request or runs the load test."""
    from keras_perceiver.serving.client import GrpcClient, RestClient

    kind = RestClient if options.rest else GrpcClient
    if not options.rest:
        console.say("loading TensorFlow ...")
        with console.quiet():
            import tensorflow as tf  # noqa: F401  the client needs it
    client = kind(options.address, options.model, options.version, options.timeout)
    try:
        if options.requests:
            _measure(client, options)
        else:
            _ask(client, options)
    finally:
        client.close()


def _measure(client, options):
    from keras_perceiver.serving.client import load

    with console.waiting("measuring"):
        measured = load(
            client,
            options.batch,
            options.signature,
            options.requests,
            options.concurrency,
        )
    print(measured.text())
    if measured.errors:
        raise measured.errors[0]


def _ask(client, options):
    from keras_perceiver.cli import answers

    outputs = client.predict(options.batch, options.signature)
    size = len(next(iter(outputs.values())))
    names = [Path(path).name for path in options.files]
    if len(names) != size:
        names = [f"{names[0]}[{i}]" for i in range(size)]
    table = answers.Table(names, options.json)
    for name, row in zip(names, answers.rows(outputs, size), strict=True):
        table.show(name, row)
