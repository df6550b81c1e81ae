"""THE MODEL z = f(z, x): solvers, MDEQ and ResNet, weights on disk, and the form in which a network is run."""
