import csv

import numpy as np
import pytest

from drpwatch.cli import main
from drpwatch.formats import star

YX = np.array([[512.25, 1024.75], [10.0, 20.0]])
SCORE = np.array([0.9, 0.4])


@pytest.fixture
def picks(tmp_path):
    path = tmp_path / "particles.star"
    rows = star.particles_rows("GS1/foo.mrc", YX, SCORE) + star.particles_rows(
        "GS2/foo.mrc", YX[:1], SCORE[:1]
    )
    path.write_bytes(star.particles_header(star.Optics(1.5)) + rows)
    return path


def test_boxes_keep_the_folders(picks, tmp_path):
    out = tmp_path / "out"
    assert main(["export", str(picks), "--format", "box", "--box-size-px", "100", "-o", str(out)]) == 0
    assert (out / "GS1/foo.box").read_text().splitlines()[0].split() == ["975", "462", "100", "100"]
    assert len((out / "GS2/foo.box").read_text().splitlines()) == 1


def test_cbox_holds_the_scores(picks, tmp_path):
    assert main(["export", str(picks), "--format", "cbox", "--box-size-px", "100", "-o", str(tmp_path)]) == 0
    assert "0.900000" in (tmp_path / "GS1/foo.cbox").read_text()


def test_csv_has_every_pick(picks, tmp_path):
    table = tmp_path / "new" / "picks.csv"
    assert main(["export", str(picks), "--format", "csv", "-o", str(table)]) == 0
    rows = list(csv.DictReader(table.open()))
    assert [(row["micrograph"], row["x_px"], row["y_px"]) for row in rows] == [
        ("GS1/foo", "1024.750", "512.250"),
        ("GS1/foo", "20.000", "10.000"),
        ("GS2/foo", "1024.750", "512.250"),
    ]


def test_topaz_names_micrographs_without_folder(picks, tmp_path):
    table = tmp_path / "picks.txt"
    assert main(["export", str(picks), "--format", "topaz", "-o", str(table)]) == 0
    assert table.read_text().splitlines()[1] == "foo\t1025\t512\t0.900000"


def test_boxes_need_a_size(picks, tmp_path, capsys):
    assert main(["export", str(picks), "--format", "box", "-o", str(tmp_path)]) == 2
    assert "--box-size-px" in capsys.readouterr().err


def test_a_name_cannot_lead_out_of_the_folder(tmp_path, capsys):
    path = tmp_path / "particles.star"
    path.write_bytes(star.particles_header(star.Optics(1.5)) + star.particles_rows("../foo.mrc", YX, SCORE))
    out = tmp_path / "a" / "b"
    assert main(["export", str(path), "--format", "box", "--box-size-px", "9", "-o", str(out)]) == 2
    assert "leads out of" in capsys.readouterr().err
    assert not out.exists()
