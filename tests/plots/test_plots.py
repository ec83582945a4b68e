"""Curves of runs: what is read, what is drawn, in a PNG and in a real browser."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import forked
import sparsecircuits as sc
from axe import serious_faults
from sparsecircuits.plots import plot_runs
from sparsecircuits.plots.curves import MOST_POINTS, panels, read_runs, smoothed, thinned


def write_run(folder, *, steps=200, rate=0.05, old=False):
    """Metrics as training writes them; old: validation lines that hold a step alone, and no neurons."""
    folder.mkdir(parents=True)
    lines = []
    for step in range(10, steps + 1, 10):
        if step % 50 == 0:
            more = {} if old else {"tokens": step * 64, "seconds": step / 4, "alive_neurons": 900, "neurons": 1000}
            lines.append({"step": step, "val_loss": 3 + 1 / step, **more})
        lines.append(
            {
                "step": step, "tokens": step * 64, "loss": 3 + 2 / step, "density": max(0.02, 1 - step / 100),
                "nonzeros": 1000 - step, "lr": rate, "tokens_per_second": 5000 + step, "seconds": step / 4,
            }
        )  # fmt: skip
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 210, "lo')  # a line cut short by a kill
    return folder


def test_panels_hold_what_the_metrics_say(tmp_path):
    runs = read_runs([write_run(tmp_path / "new"), write_run(tmp_path / "old", old=True)])
    found = {panel.key: panel for panel in panels(runs)}
    assert list(found) == ["loss", "density", "nonzeros", "lr", "alive", "speed"]
    training, other, validation, old_validation = found["loss"].curves
    assert (training.label, training.run, other.run) == ("training", 0, 1)
    assert training.y.tolist() == [3 + 2 / step for step in range(10, 201, 10)]
    assert validation.x["steps"].tolist() == [50, 100, 150, 200]
    for axis, factor in (("tokens", 64), ("minutes", 1 / 240)):
        wanted = [step * factor for step in (50, 100, 150, 200)]
        assert validation.x[axis] == pytest.approx(wanted)
        assert old_validation.x[axis] == pytest.approx(wanted)
    assert found["alive"].curves[0].y.tolist() == [90.0] * 4
    assert len(found["alive"].curves) == 1
    assert found["density"].curves[0].y[-1] == pytest.approx(2.0)


def test_names_tell_runs_apart(tmp_path):
    folders = [write_run(tmp_path / name) for name in ("a/nano", "b/nano", "c/micro")]
    assert [run.name for run in read_runs(folders)] == ["a/nano", "b/nano", "c/micro"]
    assert [run.name for run in read_runs(folders[1:])] == ["nano", "micro"]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=400))
def test_smoothing_keeps_length_range_and_ends(values):
    y = np.array(values)
    smooth = smoothed(y)
    assert smooth.shape == y.shape
    assert y.min() - 1e-6 <= smooth.min() <= smooth.max() <= y.max() + 1e-6
    assert smooth[[0, -1]] == pytest.approx(y[[0, -1]], abs=1e-6)


@pytest.mark.parametrize("n", [1, 7, MOST_POINTS, MOST_POINTS + 1, 9999, 50_000])
def test_thinning_keeps_order_and_the_last_value(n):
    thin = thinned(np.arange(n, dtype=float))
    assert len(thin) <= MOST_POINTS
    assert thin[-1] == n - 1
    assert (np.diff(thin) > 0).all()


def test_png_shows_every_run_in_its_colour(tmp_path):
    from matplotlib.image import imread

    runs = [write_run(tmp_path / "one"), write_run(tmp_path / "two", rate=0.02)]
    plot_runs(runs, tmp_path / "p.png", axis="tokens")
    pixels = (imread(tmp_path / "p.png")[..., :3] * 255).round().astype(int)
    assert pixels.shape[1] > 1000
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == color).all(axis=-1).sum() > 200


def test_faults_are_told(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / "metrics.jsonl").write_text('{"step": 1}\n[1]\n')
    for paths, out, words in (
        ([tmp_path / "empty"], "p.png", "no metrics.jsonl"),
        ([tmp_path / "none"], "p.png", "no metrics.jsonl"),
        ([tmp_path / "early"], "p.png", "no training step yet"),
        ([run], "p.pdf", "ends in .png or .html"),
        ([], "p.png", "at least one run"),
    ):
        with pytest.raises(sc.UserError, match=words):
            plot_runs(paths, tmp_path / out)
    with pytest.raises(sc.UserError, match="no axis"):
        plot_runs([run], tmp_path / "p.png", axis="epochs")
    assert not list(tmp_path.glob("p.*"))


def test_the_command(tmp_path):
    write_run(tmp_path / "run")
    done = forked.run("plot", "run", "--out", "p.html", "--x", "minutes", "--json", cwd=tmp_path, check=True)
    assert json.loads(done.stdout)["panels"] == ["loss", "density", "nonzeros", "lr", "alive", "speed"]
    page = (tmp_path / "p.html").read_text()
    assert "http-equiv" in page
    assert 'src="' not in page
    assert "https://" not in page


@pytest.mark.browser
def test_the_page_draws_offline_hides_runs_and_reads_values(tmp_path, browser):
    names = ("one", "</script><b>two")
    runs = [write_run(tmp_path / str(i) / name.replace("/", "_")) for i, name in enumerate(names)]
    plot_runs(runs, tmp_path / "p.html")
    context = browser.new_context(offline=True)
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text))
    page.goto((tmp_path / "p.html").as_uri())
    assert page.locator("figure").count() == 6
    assert page.locator("path.curve").count() == 14
    page.locator("#runs button").first.click()
    assert page.locator("path.curve").count() == 7
    page.get_by_role("button", name="tokens").click()
    assert page.locator("svg text", has_text="10k").count() == 6
    page.locator("svg[role=img]").first.hover()
    assert "validation" in page.locator(".readout").first.inner_text()
    assert page.locator("#last tbody tr").count() == 2
    page.set_viewport_size({"width": 320, "height": 600})  # the table is wider: a key must reach its end
    assert serious_faults(page) == []
    assert not faults
    context.close()


@pytest.mark.browser
def test_the_page_reads_no_run_beyond_its_end_and_stands_still(tmp_path, browser):
    plot_runs([write_run(tmp_path / "short", steps=30), write_run(tmp_path / "long", steps=1500)], tmp_path / "p.html")
    page = browser.new_page()
    page.goto((tmp_path / "p.html").as_uri())
    readout, picture = page.locator(".readout").first, page.locator("svg[role=img]").first
    before, box = page.evaluate("document.body.scrollHeight"), picture.bounding_box()
    for share, steps in ((0.9, "k"), (0.116, "")):
        picture.hover(position={"x": box["width"] * share, "y": 80})
        assert steps in readout.locator(".at").inner_text()
        shown = [text for text in readout.locator("span").all_inner_texts() if "training" in text]
        assert [text.endswith("–") for text in shown] == [steps == "k", False]
        assert page.evaluate("document.body.scrollHeight") == before
    page.close()


def test_a_dollar_in_a_run_s_name_is_no_formula(tmp_path):
    plot_runs([write_run(tmp_path / "a$b$"), write_run(tmp_path / "x$\\frac$")], tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
