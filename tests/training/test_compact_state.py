"""Training that keeps nothing but nonzeros: the numbers are those of whole matrices whose zeros forget."""

import dataclasses
import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecircuits as sc
from heldruns import EVERY, HELD, assert_same, interrupted, run_of, small_tokens, with_sparsity
from sparsecircuits.models.storage import content_hash
from sparsecircuits.models.transformer import sparse_matrices
from sparsecircuits.runs import METRICS_NAME
from sparsecircuits.sparsity.schedules import SparsityConfig
from sparsecircuits.training import loop
from sparsecircuits.training.distributed import World
from sparsecircuits.training.metrics import read_metrics

COMPACT = with_sparsity(start="uniform", state="compact")


@pytest.fixture(scope="module")
def tokens():
    return small_tokens()


def steps(run, count):
    for _ in range(count):
        run._take_step(run._progress())
        run.step += 1
        yield run.step - 1


def forget_moments(run):
    """Forget what compact weights do not have, the moments of zero weights: as if their gradient had always been as
    large as in the step to come, and had pointed anywhere."""
    run.held.release()
    weights = [run.model.get_parameter(target.name) for target in run.projector.targets]
    for weight in weights:
        state = run.adam.state[weight]
        if not state:  # as Adam itself begins
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["exp_avg"][weight.detach() == 0] = 0

    def fill(*_):
        for weight in weights:
            zero = weight.detach() == 0
            run.adam.state[weight]["exp_avg_sq"][zero] = weight.grad[zero].square()
        hook.remove()

    hook = run.adam.register_step_pre_hook(fill)


def gradient_share(model, places):
    """How much of the squared gradient lies at these places."""
    gradients = {name: matrix.grad for name, matrix in sparse_matrices(model).items()}
    here = sum(float(gradients[name][kept].square().sum()) for name, kept in places.items())
    return here / sum(float(grad.square().sum()) for grad in gradients.values())


@pytest.mark.parametrize("tied", [False, True])
def test_it_is_training_with_whole_matrices_whose_zeros_forget(tokens, tmp_path, tied):
    model = dataclasses.replace(COMPACT.model, tied_unembed=tied, afrac=None)  # an AbsTopK tips at a rounding
    config = dataclasses.replace(COMPACT, model=model)
    plain = dataclasses.replace(config, sparsity=dataclasses.replace(config.sparsity, state="dense"))
    ours, whole = (run_of(c, tokens, tmp_path) for c in (config, plain))
    start = {name: matrix.detach() != 0 for name, matrix in sparse_matrices(whole.model).items()}
    assert len(ours.held.names) == len(start)
    for _ in range(4 * EVERY + 2):
        regrows = whole.step % EVERY == 0
        if regrows:
            forget_moments(whole)
        before = {name: matrix.detach() != 0 for name, matrix in sparse_matrices(whole.model).items()}
        for run in (ours, whole):
            next(steps(run, 1))
        if regrows:
            assert ours.held.share == pytest.approx(gradient_share(whole.model, before), rel=1e-3)
        whole.held.share = ours.held.share
    ours.held.finish()
    moved = 0
    for (name, one), other in zip(ours.model.named_parameters(), whole.model.parameters(), strict=True):
        kept = (one != 0) == (other != 0)
        assert int((~kept).sum()) <= 4, name  # two near ties may tip
        torch.testing.assert_close(one[kept], other[kept], rtol=1e-2, atol=1e-3, msg=name)
        moved += name in start and int((start[name] & (one == 0)).sum()) > 10
    assert moved == len(start)


@given(
    st.floats(0.02, 0.11),
    st.integers(0, 3),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["uniform", "erk"]),
    st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_every_matrix_is_on_its_budget_after_every_step(
    tokens, tmp_path_factory, density, floor, every, cut, start, again
):
    sparsity = SparsityConfig(
        density=density,
        embed_density=0.05,
        floor=min(floor, int(density * 32) // 2),
        regrow_every=every,
        start=start,
        state="compact",
    )
    model = dataclasses.replace(HELD.model, d_model=32, d_head=8, n_layer=1)
    config = dataclasses.replace(
        HELD, model=model, sparsity=sparsity, accumulate=2 if cut else 1, checkpoint_activations=again
    )
    run = run_of(config, tokens, tmp_path_factory.getbasetemp())
    budgets = {
        t.name: int(t.density * run.model.get_parameter(t.name).numel())
        for t in run.projector.targets
        if t.name not in run.held.names
    }
    for matrix in run.held.pieces:
        budgets[matrix.name] = int(matrix.target.density * matrix.size)
    for step in steps(run, 8):
        for name, weight in sparse_matrices(run.model).items():
            assert int(weight.count_nonzero()) == budgets[name], (step, name)
        for matrix in run.held.pieces:
            weight = matrix.pattern.shape
            assert int(matrix.values.count_nonzero()) == budgets[matrix.name] == len(matrix.index), (step, matrix.name)
            units = matrix.index // weight[1] if matrix.target.dim else matrix.index % weight[1]
            counts = torch.bincount(units, minlength=weight[1 - matrix.target.dim])
            assert int(counts.min()) >= matrix.target.floor


def test_between_steps_no_tensor_is_as_large_as_a_matrix(tokens, tmp_path):
    model = dataclasses.replace(COMPACT.model, d_model=96, n_ctx=16)
    run = run_of(dataclasses.replace(COMPACT, model=model), tokens, tmp_path)
    shapes = {matrix.pattern.shape for matrix in run.held.pieces}
    assert shapes == {(2048, 96), (288, 96), (96, 96), (384, 96), (96, 384)}
    for _ in steps(run, EVERY + 2):
        gc.collect()
        alive = [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor) and tuple(x.shape) in shapes]
        assert not alive
    assert run._line(run._status(0.5, 1.0, 1.0), 1.0, 1.0)["nonzeros"] == sum(m.kept for m in run.held.pieces)


@pytest.mark.parametrize("saved", [5, 8, 22])
def test_a_resumed_run_ends_bit_equal(tokens, tmp_path, saved, monkeypatch):
    config = dataclasses.replace(COMPACT, checkpoint_every=min(saved, 21), eval_every=6)
    whole = sc.train(config, tmp_path / "whole", tokens=tokens)
    assert_same(whole, interrupted(config, saved + 1, tmp_path / "run", tokens, monkeypatch))


def test_the_saved_model_is_like_any_other(tokens, tmp_path):
    config = dataclasses.replace(COMPACT, steps=6, checkpoint_every=3)
    plain = dataclasses.replace(config, sparsity=dataclasses.replace(config.sparsity, state="dense"))
    trained = sc.train(config, tmp_path / "compact", tokens=tokens)
    other = sc.train(plain, tmp_path / "plain", tokens=tokens)
    loaded = sc.load_model(tmp_path / "compact")
    assert content_hash(loaded) == content_hash(trained)
    assert list(trained.state_dict()) == list(other.state_dict())
    assert trained(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all()
    last = read_metrics(tmp_path / "compact" / METRICS_NAME)[-1]
    assert last["done"]
    assert last["dead_neurons"] == last["neurons"] - last["alive_neurons"]  # each has its floor of weights
    assert {"dead_q", "dead_k", "dead_v"} <= set(last)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("compact", "plain")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_a_checkpoint_needs_room_for_its_nonzeros_alone(tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 0})
    monkeypatch.setattr(loop.shutil, "disk_usage", lambda _: full)
    asked = []
    for state in ("dense", "compact"):
        sparsity = SparsityConfig(density=0.01, start="uniform", state=state)
        config = dataclasses.replace(HELD, model=dataclasses.replace(HELD.model, d_model=1024), sparsity=sparsity)
        with pytest.raises(sc.UserError, match="training needs") as raised:
            loop.require_room(config, tmp_path)
        asked.append(float(str(raised.value).split()[2].replace(",", "")))
    assert asked[1] < 0.2 * asked[0]


def test_what_is_not_supported_is_refused_in_a_line(tokens, tmp_path):
    with pytest.raises(sc.UserError, match=r"sparsity\.state compact needs a sparse start"):
        SparsityConfig(state="compact")
    with pytest.raises(sc.UserError, match="compact is for float32 on a CPU"):
        run_of(dataclasses.replace(COMPACT, dtype="bfloat16"), tokens, tmp_path)
    engine = run_of(with_sparsity(start="uniform"), tokens, tmp_path).engine
    engine.shards = World(size=2)
    with pytest.raises(sc.UserError, match="use --parallel ddp"):
        engine.take_out(COMPACT)
