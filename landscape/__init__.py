"""The loss landscape of a PyTorch network: see it, measure it, compare it, gate it.

The modules are the interface: ``from landscape import surface, store, plot``.
Data travel one way: task, objective, analysis, record, file, picture.

Letters for shapes, used in every docstring and beside every field of a result:

    P     weights that move, as one flat vector
    N     examples
    B     examples of one batch
    I, J  grid points along alpha and beta
    K     points at which the network was evaluated
    M     marked checkpoints

Losses are means per example, in the unit of the task's loss (nats for
cross-entropy). alpha and beta are multiples of the directions as stored.
"""
