import hashlib
import shutil
import subprocess

import pytest

from keras_perceiver.cli import main
from keras_perceiver.serving import verify_version
from keras_perceiver.serving.manifest import write_manifest

pytestmark = pytest.mark.one_backend

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "assets.extra/tf_serving_warmup_requests": b"",
    "model_card.json": b"{}",
}


@pytest.fixture
def version(tmp_path):
    for name, content in FILES.items():
        path = tmp_path / "1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_manifest(tmp_path / "1")
    return tmp_path / "1"


def test_sha256sum_reads_the_manifest(version):
    lines = (version / "SHA256SUMS").read_text().splitlines()
    assert lines == sorted(
        (f"{hashlib.sha256(c).hexdigest()}  {name}" for name, c in FILES.items()),
        key=lambda line: line.split()[1],
    )
    program = shutil.which("sha256sum")
    assert program
    subprocess.run([program, "--check", "SHA256SUMS"], cwd=version, check=True)


def test_intact_version_is_verified(version, capsys):
    assert verify_version(version) == 4
    main(["verify", str(version)])
    assert capsys.readouterr().out == f"verified: 4 files in {version}\n"


def test_every_flipped_bit_is_detected(version):
    path = version / "saved_model.pb"
    for i in range(8 * len(FILES["saved_model.pb"])):
        content = bytearray(FILES["saved_model.pb"])
        content[i // 8] ^= 1 << i % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match="saved_model.pb has changed. Export"):
            verify_version(version)


def test_all_faults_are_named(version):
    (version / "saved_model.pb").write_bytes(b"other")
    (version / "variables" / "variables.index").unlink()
    (version / "saved_model.pbtxt").touch()
    with pytest.raises(
        SystemExit, match="^error: A version must contain the files"
    ) as error:
        main(["verify", str(version)])
    text = str(error.value)
    assert "saved_model.pb has changed" in text
    assert "variables/variables.index is missing" in text
    assert "saved_model.pbtxt is not in SHA256SUMS" in text


def test_damaged_or_missing_manifest(version):
    path = version / "SHA256SUMS"
    text = path.read_text()
    path.write_text(text.replace("  saved", " saved"))
    with pytest.raises(
        ValueError, match="line 3 of SHA256SUMS; saved_model.pb is not in"
    ):
        verify_version(version)
    path.write_text("")
    with pytest.raises(ValueError, match="model_card.json is not in SHA256SUMS"):
        verify_version(version)
    path.unlink()
    for folder in (version, version.parent):
        with pytest.raises(SystemExit, match="Pass the folder of a version, such as"):
            main(["verify", str(folder)])


def test_client_verifies_before_it_sends_a_request(version, tmp_path):
    (tmp_path / "a.png").touch()
    words = ["serve-client", "localhost:1", "digits", str(tmp_path / "a.png"), "--rest"]
    words += ["--verify", str(version), "--timeout", "1"]
    with pytest.raises(SystemExit, match="UNAVAILABLE"):
        main(words)
    (version / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(SystemExit, match="saved_model.pb has changed"):
        main(words)
