"""The methods: one objective each, over the same loop."""

from ucdir.learn.methods.coda import Coda
from ucdir.learn.methods.protoot import ProtoOT
from ucdir.learn.methods.prototype import Prototype
from ucdir.learn.methods.ucdir import Ucdir
from ucdir.learn.objective import Objective
from ucdir.settings import Settings


def build_objective(settings: Settings, num_domains: int) -> Objective:
    """The objective of the method that the settings name, for S domains."""
    method, epochs = settings.method, settings.optimiser.epochs
    if method.name == "prototype":
        return Prototype(method, epochs)
    if method.name == "coda":
        return Coda(method, num_domains, settings.encoder.dim, settings.run.seed)
    if method.name == "protoot":
        return ProtoOT(method, epochs, num_domains, settings.encoder.dim)
    return Ucdir(method, epochs)
