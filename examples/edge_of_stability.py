"""Gradient descent sharpens a network until its learning rate is just about stable.

Claim (Cohen et al. 2021, sections 3.1 and appendix B): Trained on full batches, lambda_max of the
Hessian rises to the largest stable value and stays there: 2/rate for gradient descent,
(2+2b)/rate with Polyak's momentum b, (2+2b)/(rate(1+2b)) with Nesterov's.

Thresholds (fixed on seeds 0, 1, 2): lambda_max, averaged over the last quarter of the training, is
within 10 % of that value, and was under 80 % of it at the start, for every method and seed.

Control (--control): batches of 16 in place of all examples, whose noise keeps lambda_max lower.

    python examples/edge_of_stability.py [FOLDER] [--seeds 3,4,5] [--control]

Trains tanh MLPs on digits with the squared loss, 2000 steps each; `landscape track` reads rate and
momentum from the checkpoints and follows lambda_max. Two minutes.
"""
