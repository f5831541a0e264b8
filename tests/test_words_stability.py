"""The edge of stability in words."""

from landscape.cli import words_stability
from landscape.stability import Update, judge


def test_a_verdict_says_value_ratio_threshold_and_source():
    update = Update(0.1, 0.9, True, weight_decay=0.01, source="'optimizer' in the checkpoint")
    first, second, caveat = words_stability.sentences(judge(13.0, 1e-4, update))
    assert first == (
        "edge of stability: at the edge: lambda_max with weight decay 0.01 13.01 is 0.959 times "
        "(2+2b)/(lr(1+2b)) = 13.57"
    )
    assert second == (
        "optimiser: Nesterov momentum, lr = 0.1, b = 0.9, from 'optimizer' in the checkpoint"
    )
    assert caveat == (
        "note: the edge is that of training on full batches; on small ones it settles lower"
    )


def test_the_words_of_adam_speak_of_its_own_matrix_and_of_beta1():
    adam = Update(1e-3, 0.9, adam=True, source="--lr")
    first, second, *_ = words_stability.sentences(judge(1e5, 1.0, adam))
    assert first.startswith("edge of stability: beyond the edge: lambda_max of D^-1/2 H D^-1/2 ")
    assert second == "optimiser: Adam, lr = 0.001, beta1 = 0.9, from --lr"


def test_doubt_and_batchnorm_are_said():
    lines = words_stability.sentences(judge(9.05, 0.2, Update(0.2)), batchnorm=True)
    assert "at the edge, within its error: " in lines[0]
    assert any("BatchNorm is held still here" in line for line in lines)


def test_the_largest_rates_are_those_of_the_asked_momentum():
    assert words_stability.rates(10.0, -1.0) == [
        "largest stable learning rate: 0.2 of gradient descent (2 / lambda_max)"
    ]
    assert words_stability.rates(10.0, -1.0, 0.9) == [
        "largest stable learning rate: 0.2 of gradient descent (2 / lambda_max), "
        "0.38 with Polyak momentum 0.9, 0.1357 with Nesterov's"
    ]
    assert words_stability.rates(-1.0, -2.0) == []
    (words,) = words_stability.rates(1.0, -2.0)
    assert words.endswith("and none along the most negative curvature, which is the largest")
