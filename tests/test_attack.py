"""The attacks, with small counts: every outcome must be right."""

import attack
import attack_models
import pytest

pytestmark = [pytest.mark.one_backend, pytest.mark.integration]


@pytest.fixture
def page(tmp_path):
    """Returns a document with a table."""
    path = tmp_path / "page.md"
    path.write_text("# Attacks\n\n| a |\n| --- |\n| b |\n\n*Old.*\n")
    return path


@pytest.mark.slow
def test_attacks(page, capsys):
    counts = {"kills": 1, "files": 10, "disks": 2, "requests": 26, "threads": 2}
    words = [word for name, n in counts.items() for word in (f"--{name}", str(n))]
    attack.main([*words, "--output", str(page)])
    text = page.read_text()
    assert text.startswith("# Attacks\n\n| Attack | Outcome | Count | Right |\n")
    assert text.endswith(" |\n\n*Old.*\n")
    table = text.removeprefix("# Attacks\n\n").removesuffix("\n\n*Old.*\n")
    assert capsys.readouterr().out.startswith(f"{table}\n")
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    found = {}
    for name, _, count, is_right in rows:
        key = name.split()[-1]
        found[key] = found.get(key, 0) + int(count)
        assert is_right == "yes"
    # Every thread calls the model ten times, and once more at the end.
    assert found == {**counts, "threads": 2 * attack_models.NUM_CALLS + 1}


def test_wrong_outcomes_fail(page, monkeypatch, capsys):
    outcomes = [("same result", True), ("other result", False), ("same result", True)]

    def damaged(folder, count, seed):
        print("not a part of the table")
        return outcomes

    monkeypatch.setattr(attack, "ATTACKS", {"damaged files": damaged})
    with pytest.raises(SystemExit, match="Received: 1 wrong ones"):
        attack.main(["--output", str(page)])
    assert "| damaged files | same result | 2 | yes |" in page.read_text()
    assert "| damaged files | other result | 1 | NO |" in capsys.readouterr().out
