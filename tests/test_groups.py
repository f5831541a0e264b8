"""Groups of m examples: one seeded partition, coupled batches whole, data streamed or kept."""

import pytest
import torch
from oracles import as_task, classifier, cross_entropy, mlp, objective

from landscape import tree
from landscape.groups import Groups

DOUBLE = torch.float64


def coupled(sizes=(4, 4, 4, 4, 2)):
    """A loss against the mean of its batch, over batches that the task made."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(n, 4, generator=generator), torch.randint(0, 3, (n,), generator=generator))
        for n in sizes
    ]

    def loss(net, batch):
        scores = net(batch[0])
        return cross_entropy(net, batch) + (scores - scores.mean(0)).square().sum(1)

    return as_task(model=mlp, data=lambda: batches, loss=loss), batches


def test_every_example_is_in_at_most_one_group_and_the_rest_is_counted():
    f = objective(classifier(50), batch_size=7)
    list(f.batches)
    groups = Groups(f, 8, seed=3)
    assert (groups.count, groups.examples, groups.left_out) == (6, 50, 2)
    assert torch.bincount(groups.labels[groups.labels >= 0]).tolist() == [8] * 6
    x = classifier(50).data()[0]
    for number, group in enumerate(groups):
        seen = torch.cat([batch[0] for batch in group.batches])
        expected = x[groups.labels == number]
        assert torch.equal(seen.sort(0).values, expected.sort(0).values)


def test_a_group_has_the_mean_loss_of_its_examples_and_groups_the_mean_of_all():
    f = objective(classifier(48), dtype=DOUBLE, batch_size=7)
    groups, losses = Groups(f, 8, seed=0), f.losses(f.theta()).total
    means = [group.loss(group.theta()) for group in groups]
    for number, mean in enumerate(means):
        assert mean == pytest.approx(float(losses[groups.labels == number].mean()))
    assert sum(means) / len(means) == pytest.approx(f.loss(f.theta()))


def test_the_seed_alone_decides_whatever_the_batches_are():
    one, other = (objective(classifier(50), batch_size=b) for b in (7, 50))
    same = [Groups(f, 8, seed=3) for f in (one, other)]
    assert torch.equal(same[0].labels, same[1].labels)
    assert same[0].digest == same[1].digest != Groups(one, 8, seed=4).digest


def test_class_sorted_data_are_mixed():
    x, y = classifier(300).data()
    order = y.argsort()
    f = objective(as_task(model=mlp, data=lambda: (x[order], y[order]), loss=cross_entropy))
    for group in Groups(f, 50, seed=0):
        (batch,) = group.batches
        assert len(batch[1].unique()) == 3


def test_coupled_batches_are_taken_whole_in_a_seeded_random_order():
    task, batches = coupled()
    f = objective(task, dtype=DOUBLE)
    groups = Groups(f, 6, seed=1)
    assert groups.whole
    inside = [[tree.size(batch) for batch in group.batches] for group in groups]
    assert all(sum(sizes) >= 6 for sizes in inside)
    assert groups.left_out == 18 - sum(map(sum, inside))
    for group in groups:
        for batch in group.batches:
            assert any(torch.equal(batch[0], own[0].double()) for own in batches)
    orders = {tuple(Groups(f, 6, seed=seed).labels.tolist()) for seed in range(8)}
    assert len(orders) > 1
    # The loss of a group is that of its whole batches, which cutting would change.
    net = task.model().double()
    for group in groups:
        with torch.no_grad():
            mean = torch.cat([task.loss(net, batch) for batch in group.batches]).mean()
        assert group.loss(group.theta()) == pytest.approx(float(mean))


def test_streamed_data_give_the_groups_of_kept_ones():
    kept, streamed = (objective(classifier(40), batch_size=7, memory=m) for m in (None, 0))
    for f in (kept, streamed):
        list(f.batches)
    assert kept.batches.kept
    assert not streamed.batches.kept
    for one, other in zip(Groups(kept, 8, seed=0), Groups(streamed, 8, seed=0), strict=True):
        assert one.loss(kept.theta()) == other.loss(streamed.theta())


def test_the_first_groups_are_those_of_all():
    f = objective(classifier(50), batch_size=7)
    groups = Groups(f, 8, seed=3)
    every = [group.loss(f.theta()) for group in groups]
    assert [group.loss(f.theta()) for group in groups.first(2)] == every[:2]
    assert len(list(groups.first(99))) == 6
    with pytest.raises(ValueError, match="m 0 must be at least 1"):
        Groups(f, 0, seed=0)
