"""A published circuit in a real browser: drawn from its file, edges whose weights it does not say among it."""

import pytest
import torch

import sparsecircuits as sc
from publishedfile import viz_data, write_viz_data
from sparsecircuits.interop.circuit_files import circuit_files
from sparsecircuits.planted.models import QUOTE_NODES
from sparsecircuits.viewer.server import serve

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("weights", [True, False])
def test_it_is_drawn(browser, handmade_run, tmp_path, weights):
    file = write_viz_data(viz_data(sc.load_model(handmade_run)), tmp_path)
    if not weights:
        content = torch.load(file, weights_only=True)
        del content["importances"]["pair_data_connections"]
        torch.save(content, file)
    server = serve(circuit_files(tmp_path / "viz"))
    page, troubles = browser.new_page(), []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    try:
        page.goto(server.url)
        page.wait_for_selector("#picture .vertex")
        drawn = page.eval_on_selector_all("#picture .vertex", "all => all.map(one => one.dataset.name)")
        assert set(QUOTE_NODES) <= set(drawn)
        assert page.locator("#picture .link.edge").count() == 4
        page.click('#picture .vertex[data-name="0.mlp.post_act.5"]')
        page.wait_for_selector("#panel.pinned")
        assert "+0.5" in page.inner_text("#panel")  # nats that its ablation costs
    finally:
        page.close()
        server.close()
    assert not troubles
